"""The Python client: the HTTP interface as methods.

    with Client("http://127.0.0.1:8000") as client:
        upload = client.upload_dataset(Path("images.zip"), name="mine")
        client.wait(upload["job"]["id"])
        job = client.train(upload["id"], recipe="cifar10-resnet20", register_as="mine", alias="production")
        for event in client.events(job["id"]):
            print(event.type, event.data)
        print(client.classify([Path("cat.jpg")], model="mine"))

What the server answers is returned as it came, decoded from JSON; docs/api.md shows each answer. Every method raises
`Problem` for a refusal and `Unreachable` where nobody answers.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote
from uuid import uuid4

import httpx

from resnetd.errors import Problem, Unreachable
from resnetd.sse import messages

DEFAULT_SERVER = "http://127.0.0.1:8000"
ENDED = frozenset({"succeeded", "failed", "cancelled"})
PIECE = 1 << 20  # bytes of an upload sent at once
_ATTEMPTS = 4  # of a request that may be sent twice unharmed
_PASSING = frozenset({502, 503, 504})  # refusals that a stream outwaits: a part is being started again
_SILENCE_SECONDS = 60.0  # without a byte on an event stream; the server sends a comment far more often

Json = dict[str, Any]


@dataclass(frozen=True)
class Event:
    """One entry of a job's history. `id` is `<milliseconds since 1970>-<n>`."""

    id: str
    type: str
    data: Json


_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Client:
    """One server. Keeps its connections; not for several threads at once."""

    def __init__(self, server: str = DEFAULT_SERVER, key: str | None = None, *, timeout: float = 60.0) -> None:
        self.server = server.rstrip("/")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        try:
            self._http = httpx.Client(
                base_url=self.server,
                headers=headers,
                timeout=httpx.Timeout(timeout, connect=5.0),
                trust_env=httpx.URL(self.server).host not in _LOOPBACK,  # no proxy stands before this machine itself
            )
        except httpx.InvalidURL as error:
            raise Unreachable(self.server, str(error)) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    # Classification

    def classify(self, images: Sequence[Path | bytes], *, model: str | None = None, top_k: int | None = None) -> Json:
        """Labels for image files or their bytes, in one request; each image has its own result or its own error."""
        with ExitStack() as opened:
            files = []
            for number, image in enumerate(images):
                if isinstance(image, bytes):
                    files.append(("file", (f"image-{number}", image)))
                else:
                    content = opened.enter_context(image.open("rb")).read()
                    files.append(("file", (image.name, content)))
            fields = {"model": model, "top_k": top_k}
            data = {name: str(value) for name, value in fields.items() if value is not None}
            return self._json(self._request("POST", "/v1/classify", data=data, files=files))

    # Datasets

    def upload_dataset(
        self, file: Path, *, name: str | None = None, on_bytes: Callable[[int], None] = lambda _: None
    ) -> Json:
        """Send an archive of images; `{"id": "ds_…", "job": {"id": "job_…"}}`. `on_bytes` gets each piece's size."""

        def pieces() -> Iterator[bytes]:
            with file.open("rb") as content:
                while piece := content.read(PIECE):
                    yield piece
                    on_bytes(len(piece))

        headers = {
            "Content-Length": str(file.stat().st_size),
            "Content-Type": "application/octet-stream",
            "Idempotency-Key": uuid4().hex,
        }
        query = {"name": name or file.name.partition(".")[0]}
        return self._json(self._request("POST", "/v1/datasets", params=query, headers=headers, content=pieces()))

    def datasets(self, *, limit: int = 100, after: str | None = None) -> Json:
        return self._page("/v1/datasets", limit, after)

    def dataset(self, dataset_id: str) -> Json:
        return self._get(f"/v1/datasets/{_segment(dataset_id)}")

    def delete_dataset(self, dataset_id: str) -> None:
        self._request("DELETE", f"/v1/datasets/{_segment(dataset_id)}")

    # Jobs

    def train(
        self,
        dataset: str,
        *,
        recipe: str,
        overrides: Mapping[str, Any] | None = None,
        register_as: str | None = None,
        alias: str | None = None,
    ) -> Json:
        """Submit a train job. Sent again after a broken connection, under one Idempotency-Key: never two jobs."""
        body: Json = {"kind": "train", "dataset": dataset, "recipe": recipe, "overrides": dict(overrides or {})}
        body |= {name: value for name, value in (("register_as", register_as), ("alias", alias)) if value is not None}
        return self._json(
            self._request("POST", "/v1/jobs", json=body, headers={"Idempotency-Key": uuid4().hex}, repeat=True)
        )

    def jobs(
        self, *, limit: int = 20, after: str | None = None, state: str | None = None, kind: str | None = None
    ) -> Json:
        return self._page("/v1/jobs", limit, after, state=state, kind=kind)

    def job(self, job_id: str) -> Json:
        return self._get(f"/v1/jobs/{_segment(job_id)}")

    def cancel(self, job_id: str) -> Json:
        return self._json(self._request("POST", f"/v1/jobs/{_segment(job_id)}/cancel", repeat=True))

    def events(self, job_id: str, *, after: str | None = None, patience: float = 120.0) -> Iterator[Event]:
        """Every event of a job, as it happens, from behind event `after` to its last.

        Connects again where the connection breaks and goes on behind the last event it gave, so that none is missed
        and none comes twice. Raises Unreachable after `patience` seconds without a connection.
        """
        last, broken_since = after or "", None
        while True:
            before = last
            try:
                for event in self._tail(job_id, last):
                    broken_since = None
                    if event is None:
                        continue
                    last = event.id
                    yield event
                    if event.type in ENDED:
                        return
                if last == before and self.job(job_id)["state"] in ENDED:
                    return  # `after` was the last event already
            except (httpx.TransportError, Unreachable, Problem) as error:
                if isinstance(error, Problem) and error.status not in _PASSING:
                    raise
                broken_since = broken_since or time.monotonic()
                if time.monotonic() - broken_since > patience:
                    raise Unreachable(self.server, str(error)) from error
            time.sleep(0.25)

    def wait(self, job_id: str) -> Json:
        """The job, once it has ended, however it ended."""
        for _ in self.events(job_id):
            pass
        return self.job(job_id)

    # Models

    def models(self, *, limit: int = 100, after: str | None = None) -> Json:
        return self._page("/v1/models", limit, after)

    def model(self, name: str) -> Json:
        return self._get(f"/v1/models/{_segment(name)}")

    def set_alias(self, name: str, alias: str, version: int) -> Json:
        """Point an alias to a version; it serves from then on, without a restart."""
        path = f"/v1/models/{_segment(name)}/aliases/{_segment(alias)}"
        return self._json(self._request("PUT", path, json={"version": version}, repeat=True))

    def recipes(self) -> Json:
        """What a training may ask for, every field with its value."""
        return self._get("/v1/recipes")

    # The server

    def ready(self) -> bool:
        """Whether every part is ready, an engine's real answer included."""
        return self._send("GET", "/readyz").status_code == httpx.codes.OK

    # HTTP

    def _tail(self, job_id: str, last: str) -> Iterator[Event | None]:
        """None once the stream stands, then its events until it ends or breaks."""
        headers = {"Accept": "text/event-stream"}
        if last:
            headers["Last-Event-ID"] = last
        timeout = httpx.Timeout(_SILENCE_SECONDS, connect=5.0)
        path = f"/v1/jobs/{_segment(job_id)}/events"
        with self._http.stream("GET", path, headers=headers, timeout=timeout) as response:
            if not response.is_success:
                response.read()
                raise _problem(response)
            yield None
            for message in messages(response.iter_lines(), last_id=last):
                if message.event == "end":
                    return
                yield Event(id=message.id, type=message.event, data=json.loads(message.data))

    def _page(self, path: str, limit: int, after: str | None, **filters: str | None) -> Json:
        query = {"limit": limit, "after": after, **filters}
        return self._get(path, {name: value for name, value in query.items() if value is not None})

    def _get(self, path: str, query: Mapping[str, Any] | None = None) -> Json:
        return self._json(self._request("GET", path, params=query or {}, repeat=True))

    @staticmethod
    def _json(response: httpx.Response) -> Json:
        try:
            value = response.json()
        except ValueError as error:
            raise Unreachable(str(response.url), "the answer is not JSON; is this a resnetd server?") from error
        if not isinstance(value, dict):
            raise Unreachable(str(response.url), "the answer is no JSON object; is this a resnetd server?")
        return value

    def _request(self, method: str, path: str, *, repeat: bool = False, **options: Any) -> httpx.Response:  # noqa: ANN401 - httpx's own options
        """Raises Problem and Unreachable. `repeat`: send it again when the connection broke in the middle."""
        attempts = _ATTEMPTS if repeat else 1
        while True:
            attempts -= 1
            try:
                response = self._send(method, path, **options)
                break
            except Unreachable as error:
                if not attempts or isinstance(error.__cause__, httpx.ConnectError):
                    raise
                time.sleep(0.25)
        if not response.is_success:
            raise _problem(response)
        return response

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:  # noqa: ANN401 - httpx's own options
        try:
            return self._http.request(method, path, **options)
        except (httpx.TransportError, httpx.UnsupportedProtocol) as error:
            raise Unreachable(self.server, str(error) or type(error).__name__) from error


def _segment(text: str) -> str:
    """One path segment; `@` may stand in it (RFC 3986, section 3.3)."""
    return quote(text, safe="@")


def _problem(response: httpx.Response) -> Problem:
    body: Json = {}
    with suppress(ValueError):
        found = response.json()
        body = found if isinstance(found, dict) else {}
    return Problem(
        status=response.status_code,
        code=str(body.get("code", "http_error")),
        title=str(body.get("title", response.reason_phrase)),
        detail=str(body.get("detail", response.text[:300])),
        hint=body.get("hint"),
        request_id=body.get("request_id", response.headers.get("x-request-id")),
        errors=list(body.get("errors") or []),
    )
