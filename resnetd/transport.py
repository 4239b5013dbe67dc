"""Requests to one server, with what went wrong as `Problem` or `Unreachable`."""

import time
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from resnetd.errors import Problem, Unreachable

DEFAULT_SERVER = "http://127.0.0.1:8000"
_ATTEMPTS = 4  # of a request that may be sent twice unharmed
_LOOPBACK = ("localhost", "127.0.0.1", "::1")

Json = dict[str, Any]


class Transport:
    """Keeps its connections; not for several threads at once."""

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

    def _page(self, path: str, limit: int, after: str | None, **filters: str | None) -> Json:
        query = {"limit": limit, "after": after, **filters}
        return self._get(path, given(query))

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
            raise problem_of(response)
        return response

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:  # noqa: ANN401 - httpx's own options
        try:
            return self._http.request(method, path, **options)
        except (httpx.TransportError, httpx.UnsupportedProtocol) as error:
            raise Unreachable(self.server, str(error) or type(error).__name__) from error


def given(values: Mapping[str, Any]) -> Json:
    """Without what was left open."""
    return {name: value for name, value in values.items() if value is not None}


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
