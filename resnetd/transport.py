"""Requests to one server, with what went wrong as `Problem` or `Unreachable`."""

import time
from collections.abc import Callable, Container, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from resnetd.errors import Problem, Unreachable

DEFAULT_SERVER = "http://127.0.0.1:8000"
_ATTEMPTS = 4  # over connections that break, of a request that may be sent twice unharmed
PATIENCE_SECONDS = 30.0  # with a server that is being started again, or says when to come again
_PAUSE_SECONDS = 0.25
_CONNECT_SECONDS = 5.0
_ANSWER_SECONDS = 10.0  # for an answer itself, beyond what the server was asked to wait
_LATER = (httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE)  # these may say when to come again
_LOOPBACK = ("localhost", "127.0.0.1", "::1")

Json = dict[str, Any]


class Transport:
    """Keeps its connections; not for several threads at once.

    What may be sent twice unharmed (reading, classifying, planning, deleting, and whatever bears an Idempotency-Key)
    is sent again, for `patience` seconds, while nobody listens or the server answers 429 or 503 with the time to come
    back. `on_wait` hears why, once for each request. An answer may take `timeout` seconds, and longer where the server
    is asked to wait.
    """

    def __init__(
        self,
        server: str = DEFAULT_SERVER,
        key: str | None = None,
        *,
        timeout: float = 60.0,
        patience: float = PATIENCE_SECONDS,
        on_wait: Callable[[Problem | Unreachable], None] = lambda _: None,
    ) -> None:
        self.server = server.rstrip("/")
        self._seconds = timeout
        self._patience = patience
        self._on_wait = on_wait
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        try:
            self._http = httpx.Client(
                base_url=self.server,
                headers=headers,
                timeout=httpx.Timeout(timeout, connect=_CONNECT_SECONDS),
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

    def _page(self, path: str, limit: int | None, after: str | None, **filters: str | None) -> Json:
        """Without `limit` as many as the server gives."""
        query = {"limit": limit, "after": after, **filters}
        return self._get(path, given(query))

    def _get(self, path: str, query: Mapping[str, Any] | None = None, *, wait: float = 0.0) -> Json:
        headers = {"Accept": "application/json"}
        return self._json(self._request("GET", path, params=query or {}, headers=headers, repeat=True, wait=wait))

    @staticmethod
    def _json(response: httpx.Response) -> Json:
        try:
            value = response.json()
        except ValueError as error:
            raise Unreachable(str(response.url), "the answer is not JSON; is this a resnetd server?") from error
        if not isinstance(value, dict):
            raise Unreachable(str(response.url), "the answer is no JSON object; is this a resnetd server?")
        return value

    def _timeout_beyond(self, wait: float) -> httpx.Timeout:
        """For a request that the server may keep for `wait` seconds before it answers."""
        return httpx.Timeout(max(self._seconds, wait + _ANSWER_SECONDS), connect=_CONNECT_SECONDS)

    def _request(
        self,
        method: str,
        path: str,
        *,
        repeat: bool = False,
        wait: float = 0.0,
        answers: Container[int] = (),
        **options: Any,  # noqa: ANN401 - httpx's own options
    ) -> httpx.Response:
        """Raises Problem and Unreachable. `repeat`: send it again where that may help.

        `wait`: the seconds that the server was asked to wait; patience is so much longer. `answers`: statuses that
        are no refusals here.
        """
        until = time.monotonic() + self._patience + wait
        if wait:
            options["timeout"] = self._timeout_beyond(wait)
        broken, waited = 0, False
        while True:
            failure: Problem | Unreachable
            try:
                response = self._send(method, path, **options)
            except Unreachable as error:
                failure = error
                refused = _is_refusal(error)
                broken += not refused
                again = refused or (broken < _ATTEMPTS and not isinstance(error.__cause__, httpx.ConnectError))
                pause = _PAUSE_SECONDS if again else None
            else:
                gone = response.status_code == httpx.codes.NOT_FOUND and method == "DELETE"
                gone = gone and bool(broken or waited)  # an earlier attempt has deleted it
                if response.is_success or response.status_code in answers or gone:
                    return response
                failure = problem_of(response)
                pause, refused = _retry_after(response), True
            failure.idempotency_key = dict(options.get("headers") or {}).get("Idempotency-Key")
            if not repeat or pause is None or time.monotonic() + pause > until:
                raise failure
            if refused and not waited:
                self._on_wait(failure)
                waited = True
            time.sleep(pause)

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:  # noqa: ANN401 - httpx's own options
        try:
            return self._http.request(method, path, **options)
        except (httpx.TransportError, httpx.UnsupportedProtocol) as error:
            raise Unreachable(self.server, str(error) or type(error).__name__) from error


def given(values: Mapping[str, Any]) -> Json:
    """Without what was left open."""
    return {name: value for name, value in values.items() if value is not None}


def _is_refusal(error: BaseException | None) -> bool:
    """Whether nobody listened at the address, so that nothing was sent."""
    while error is not None and not isinstance(error, ConnectionRefusedError):
        error = error.__cause__ or error.__context__
    return error is not None


def _retry_after(response: httpx.Response) -> float | None:
    """The pause that a 429 or a 503 asks for, in seconds; None where the answer is final."""
    asked = response.headers.get("Retry-After", "")
    return float(asked) if response.status_code in _LATER and asked.isdecimal() else None


def segment(text: str) -> str:
    """One path segment; `@` may stand in it (RFC 3986, section 3.3)."""
    return quote(text, safe="@")


def problem_of(response: httpx.Response) -> Problem:
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
