"""The Python client: the HTTP interface as methods.

    with Client("http://127.0.0.1:8000") as client:
        upload = client.upload_dataset(Path("images.zip"), name="mine")
        client.wait(upload["job"]["id"])
        job = client.train(upload["id"], recipe="cifar10-resnet20", register_as="mine", alias="production")
        for event in client.events(job["id"]):
            print(event.type, event.data)
        print(client.classify([Path("cat.jpg")], model="mine"))

What the server answers is returned as it came, decoded from JSON; docs/api.md shows each answer. Every method raises
`Problem` for a refusal and `Unreachable` where nobody answers, once waiting has not helped (see `Transport`).
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from uuid import uuid4

import httpx

from resnetd.counted import Counted, ignore
from resnetd.download import save
from resnetd.errors import Problem, Unreachable
from resnetd.event_stream import Event, tail
from resnetd.model_calls import ModelCalls
from resnetd.transport import Json, given, problem_of, segment

ENDED = frozenset({"succeeded", "failed", "cancelled"})
PIECE = 1 << 20  # bytes of an upload sent at once
_PASSING = frozenset({502, 503, 504})  # refusals that a stream outwaits: a part is being started again
_PLAN_SECONDS = 100.0  # the server waits 90 s for a worker that is very busy


def _train_body(dataset: str, recipe: str, overrides: Mapping[str, Any] | None) -> Json:
    return {"kind": "train", "dataset": dataset, "recipe": recipe, "overrides": dict(overrides or {})}


def _called(paths: Sequence[Path]) -> str:
    """What to call the dataset of these files: like the one, like the folder that several were named in."""
    first = Path(os.path.abspath(paths[0]))  # noqa: PTH100 - resolve() would tell the folder that a link leads to
    return (first.parent.name if len(paths) > 1 else "") or first.name.partition(".")[0] or first.name


class Client(ModelCalls):
    """One server."""

    # Classification

    def classify(
        self,
        images: Sequence[Path | bytes],
        *,
        model: str | None = None,
        top_k: int | None = None,
        outputs: Sequence[str] = (),
    ) -> Json:
        """Labels for image files or their bytes, in one request; each image has its own result or its own error.

        `outputs` of `embedding`, `logits` and `probabilities` come with each result.
        """
        with ExitStack() as opened:
            files = []
            for number, image in enumerate(images):
                if isinstance(image, bytes):
                    files.append(("file", (f"image-{number}", image)))
                else:
                    content = opened.enter_context(image.open("rb")).read()
                    files.append(("file", (image.name, content)))
            fields = {"model": model, "top_k": top_k, "outputs": ",".join(outputs) or None}
            data = {name: str(value) for name, value in fields.items() if value is not None}
            return self._json(self._request("POST", "/v1/classify", data=data, files=files))

    def explain(self, image: Path | bytes, *, model: str | None = None, class_index: int | None = None) -> Json:
        """Where in an image the network saw a class, by default the likeliest: its result, with `heatmap`."""
        answer = self._json(self._show("explain", image, model, "application/json", {"class_index": class_index}))
        return {"model": answer["model"], "version": answer["version"], **answer["results"][0]}

    def overlay(
        self, image: Path | bytes, *, model: str | None = None, class_index: int | None = None
    ) -> tuple[bytes, Json]:
        """What `explain` finds, as a PNG file drawn over the image; and its `model`, `label`, `probability`."""
        answer = self._show("explain", image, model, "image/png", {"class_index": class_index})
        said = answer.headers
        return answer.content, {
            "model": said["X-Model"],
            "label": unquote(said["X-Class-Label"]),
            "class_index": int(said["X-Class-Index"]),
            "probability": float(said["X-Probability"]),
        }

    def preprocess(self, image: Path | bytes, *, model: str | None = None) -> Json:
        """The pixels that the network sees: `png` (base64), `shape`, and the `sha256` of the pixels themselves."""
        answer = self._json(self._show("preprocess", image, model, "application/json", {}))
        return {"model": answer["model"], "version": answer["version"], **answer["results"][0]}

    def default_model(self) -> str:
        """The name of the model that answers where none is named."""
        return str(self._json(self._send("GET", "/readyz"))["parts"]["engine"]["model"])

    def _show(
        self, verb: str, image: Path | bytes, model: str | None, accept: str, query: Mapping[str, Any]
    ) -> httpx.Response:
        path = f"/v1/models/{segment(model or self.default_model())}:{verb}"
        content = image if isinstance(image, bytes) else image.read_bytes()
        headers = {"Accept": accept, "Content-Type": "application/octet-stream"}
        return self._request("POST", path, params=given(query), content=content, headers=headers)

    # Datasets

    def upload_dataset(
        self, files: Path | Sequence[Path], *, name: str | None = None, on_bytes: Callable[[int], None] = ignore
    ) -> Json:
        """Send an archive of images, or all files of one dataset (IDX); `{"id": "ds_…", "job": {"id": "job_…"}}`.

        Without `name` it is called like the file; where there are several, like the folder of the first. `on_bytes`
        gets each piece's size. Raises ValueError where there is no file.
        """
        paths = [files] if isinstance(files, Path) else list(files)
        if not paths:
            raise ValueError("an upload needs one file at least")
        query, headers = {"name": name or _called(paths)}, {"Idempotency-Key": uuid4().hex}
        with ExitStack() as opened:
            contents = [opened.enter_context(Counted(path, on_bytes)) for path in paths]
            sent: dict[str, Any]
            if len(paths) == 1:
                headers |= {
                    "Content-Length": str(paths[0].stat().st_size),
                    "Content-Type": "application/octet-stream",
                }
                sent = {"content": iter(partial(contents[0].read, PIECE), b"")}
            else:
                sent = {"files": [("file", (path.name, each)) for path, each in zip(paths, contents, strict=True)]}
            return self._json(self._request("POST", "/v1/datasets", params=query, headers=headers, **sent))

    def datasets(self, *, limit: int = 100, after: str | None = None) -> Json:
        return self._page("/v1/datasets", limit, after)

    def dataset(self, dataset_id: str) -> Json:
        return self._get(f"/v1/datasets/{segment(dataset_id)}")

    def delete_dataset(self, dataset_id: str) -> None:
        self._request("DELETE", f"/v1/datasets/{segment(dataset_id)}", repeat=True)

    # Jobs

    def train(
        self,
        dataset: str,
        *,
        recipe: str,
        overrides: Mapping[str, Any] | None = None,
        register_as: str | None = None,
        alias: str | None = None,
        **terms: Any,  # noqa: ANN401 - each its own
    ) -> Json:
        """Submit a train job. `terms`: those of `submit`."""
        request = {"dataset": dataset, "recipe": recipe, "overrides": dict(overrides or {})}
        named = {"register_as": register_as, "alias": alias}
        return self.submit("train", request | given(named), **terms)

    def plan(
        self,
        dataset: str,
        *,
        recipe: str,
        overrides: Mapping[str, Any] | None = None,
        max_seconds: float | None = None,
    ) -> Json:
        """What a train job would be: cost, speed, memory, problems. Nothing is queued. Takes seconds."""
        body = _train_body(dataset, recipe, overrides) | given({"max_seconds": max_seconds})
        return self._json(self._request("POST", "/v1/jobs/plan", json=body, timeout=_PLAN_SECONDS))

    def plan_curve(self, dataset: str, *, recipe: str, overrides: Mapping[str, Any] | None = None) -> bytes:
        """The learning rate over a train job, as SVG."""
        body, headers = _train_body(dataset, recipe, overrides), {"Accept": "image/svg+xml"}
        return self._request("POST", "/v1/jobs/plan", json=body, headers=headers, timeout=_PLAN_SECONDS).content

    def evaluate(
        self,
        model: str,
        dataset: str,
        *,
        split: str = "test",
        **terms: Any,  # noqa: ANN401 - each its own
    ) -> Json:
        """Submit an evaluation of a model version, the one that is meant now. `terms`: those of `submit`."""
        return self.submit("evaluate", {"model": model, "dataset": dataset, "split": split}, **terms)

    def export(
        self,
        model: str,
        *,
        format: str = "bundle",  # noqa: A002 - the field's name
        **terms: Any,  # noqa: ANN401 - each its own
    ) -> Json:
        """Submit an export of a model version: `bundle`, `torch_export` or `onnx`. `terms`: those of `submit`."""
        return self.submit("export", {"model": model, "format": format}, **terms)

    def submit(
        self,
        kind: str,
        request: Mapping[str, Any],
        *,
        priority: str | None = None,
        max_seconds: float | None = None,
        webhook: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> Json:
        """Submit a job: `train`, `evaluate` or `export`, with that kind's fields.

        Sent again where that may help, under one Idempotency-Key: never two jobs. Who comes back after a failure sends
        the error's `idempotency_key`. `webhook` is `{"url", "events", "secret"}`, of which the url is enough.
        """
        terms = {"priority": priority, "max_seconds": max_seconds, "webhook": webhook}
        body = {"kind": kind, **request, **given(terms)}
        headers = {"Idempotency-Key": idempotency_key or uuid4().hex}
        return self._json(self._request("POST", "/v1/jobs", json=body, headers=headers, repeat=True))

    def jobs(
        self,
        *,
        limit: int = 20,
        after: str | None = None,
        state: str | None = None,
        kind: str | None = None,
        priority: str | None = None,
    ) -> Json:
        """A page, newest first. `state` may name several, with commas between."""
        return self._page("/v1/jobs", limit, after, state=state, kind=kind, priority=priority)

    def job(self, job_id: str, *, wait: float | None = None) -> Json:
        """The job now; with `wait`, once it has ended, at the latest after so many seconds (60 at most)."""
        return self._get(f"/v1/jobs/{segment(job_id)}", given({"wait": wait}))

    def cancel(self, job_id: str) -> Json:
        return self._verb(job_id, "cancel")

    def pause(self, job_id: str) -> Json:
        return self._verb(job_id, "pause")

    def resume(self, job_id: str) -> Json:
        return self._verb(job_id, "resume")

    def finish(self, job_id: str) -> Json:
        """Stop a training here and keep the best so far."""
        return self._verb(job_id, "finish")

    def checkpoint(self, job_id: str) -> Json:
        """Have a training write a checkpoint now."""
        return self._verb(job_id, "checkpoint")

    def retry(self, job_id: str) -> Json:
        """The new job that tries one again that failed or was cancelled."""
        return self._verb(job_id, "retry")

    def change(self, job_id: str, changes: Mapping[str, Any]) -> Json:
        """Other `lr`, `epochs`, `patience` or `priority` for a job under way."""
        path, headers = f"/v1/jobs/{segment(job_id)}", {"Idempotency-Key": uuid4().hex}
        return self._json(self._request("PATCH", path, json=dict(changes), headers=headers, repeat=True))

    def delete_job(self, job_id: str) -> None:
        """An ended job with its files."""
        self._request("DELETE", f"/v1/jobs/{segment(job_id)}", repeat=True)

    def deliveries(self, job_id: str) -> Json:
        """How a job's webhooks went: `data`, the attempts, newest first, and what is `pending`."""
        return self._get(f"/v1/jobs/{segment(job_id)}/deliveries")

    def redeliver(self, job_id: str, delivery: str) -> Json:
        """Send a webhook again, under the same id; the deliveries as they are then."""
        path = f"/v1/jobs/{segment(job_id)}/deliveries/{segment(delivery)}/redeliver"
        return self._json(self._request("POST", path, repeat=True))

    def _verb(self, job_id: str, verb: str) -> Json:
        path, headers = f"/v1/jobs/{segment(job_id)}/{verb}", {"Idempotency-Key": uuid4().hex}
        return self._json(self._request("POST", path, headers=headers, repeat=True))

    def events(self, job_id: str, *, after: str | None = None, patience: float = 120.0) -> Iterator[Event]:
        """Every event of a job, as it happens, from behind event `after` to its last.

        Connects again where the connection breaks and goes on behind the last event it gave, so that none is missed
        and none comes twice. Raises Unreachable after `patience` seconds without a connection.
        """
        last, broken_since = after or "", None
        while True:
            before = last
            try:
                for event in tail(self._http, job_id, last):
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

    def history(self, job_id: str, *, after: str | None = None) -> Iterator[Event]:
        """The events of a job so far, from behind event `after`."""
        more = True
        while more:
            page = self._page(f"/v1/jobs/{segment(job_id)}/events", 200, after)
            for each in page["data"]:
                yield Event(id=each["id"], type=each["type"], data=each["data"])
            more, after = page["has_more"], page["next"]

    def artifacts(self, job_id: str) -> list[Json]:
        """The files that a job made: `name`, `bytes`, `media_type`, `sha256`, `href` of each."""
        return list(self._get(f"/v1/jobs/{segment(job_id)}/artifacts")["data"])

    def download(self, artifact: Mapping[str, Any], target: Path, *, on_bytes: Callable[[int], None] = ignore) -> None:
        """Write one of `artifacts` to `target`: whole, its SHA-256 checked, going on where the connection breaks."""
        save(self._http, artifact, target, refuse=problem_of, on_bytes=on_bytes)

    def wait(self, job_id: str) -> Json:
        """The job, once it has ended, however it ended."""
        for _ in self.events(job_id):
            pass
        return self.job(job_id)

    # Recipes and networks

    def recipes(self) -> Json:
        """What a training may ask for, every field with its value."""
        return self._get("/v1/recipes")

    def architectures(self) -> Json:
        """The networks that a recipe may name."""
        return self._get("/v1/architectures")

    # The server

    def ready(self) -> bool:
        """Whether every part is ready, an engine's real answer included."""
        return self._send("GET", "/readyz").status_code == httpx.codes.OK
