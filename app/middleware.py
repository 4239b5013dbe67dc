"""The outermost layer of a request: its id, its trace, its log line, its metrics, and an answer when code failed."""

import asyncio
import logging
import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING
from uuid import uuid4

import orjson
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import tracing
from app.metrics import Metrics
from app.problems import ProblemError, document
from app.responses import document_v2, server_timing, speaks_v2

if TYPE_CHECKING:
    from app.telemetry import Telemetry

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._~+/=-]{1,128}")
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})
_QUIET = frozenset({"/livez", "/readyz", "/metrics"})
_access = logging.getLogger("resnetd.access")
_errors = logging.getLogger("resnetd.errors")


def request_id_for(headers: list[tuple[bytes, bytes]]) -> str:
    """The client's X-Request-ID where it is short and plain, else a new one."""
    for name, value in headers:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return value.decode()
    return f"req_{uuid4().hex}"


def answers_head(path: str) -> bool:
    """Whether HEAD is answered there as GET without the body (RFC 9110, 9.3.2); not so an endless stream."""
    return not path.endswith("/events")


class Envelope:
    """Pure ASGI, so that a disconnect reaches whoever awaits `receive` and bodies stream through untouched."""

    def __init__(self, app: ASGIApp, metrics: Metrics, telemetry: "Telemetry | None") -> None:
        self.app = app
        self.metrics = metrics
        self.telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        method = scope["method"]
        if method == "HEAD" and answers_head(scope["path"]):
            scope = {**scope, "method": "GET", "headers_only": True}
        request_id = scope["request_id"] = request_id_for(scope["headers"])
        trace = self._trace(scope, method)
        tracing.enter(trace)
        status = 0

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"x-request-id", request_id.encode()),
                    (b"x-content-type-options", b"nosniff"),
                    *_timing_header(message, trace.milliseconds),
                ]
            elif scope.get("headers_only"):
                message = {**message, "body": b""}
            await send(message)

        try:
            await self.app(scope, receive, send_marked)
        except Exception:
            _errors.exception("a request failed", extra={"request_id": request_id, "path": scope["path"]})
            if status:  # the head is out; cutting the connection is the only honest end
                raise
            await _send_failure(scope, send_marked, request_id)
        finally:
            seconds = time.perf_counter() - started
            # When the answer is out: the loop writes what was sent once it has nothing else to do.
            asyncio.get_running_loop().call_soon(self._record, scope, method, status, seconds, trace)

    def _trace(self, scope: Scope, method: str) -> tracing.Trace:
        headers = Headers(scope=scope)
        came = tracing.read(headers.get("traceparent"))
        if self.telemetry is None:
            return tracing.Trace(came)
        state = headers.getlist("tracestate")
        path, request_id = scope["path"], scope["request_id"]
        return self.telemetry.begin(came, tracestate=state, method=method, path=path, request_id=request_id)

    def _record(self, scope: Scope, method: str, status: int, seconds: float, trace: tracing.Trace) -> None:
        route = str(scope.get("template") or getattr(scope.get("route"), "path", "unmatched"))
        method = method if method in _METHODS else "other"
        self.metrics.requests.labels(method, route, str(status)).inc()
        self.metrics.duration.labels(method, route).observe(seconds)
        fields = {
            "request_id": scope["request_id"],
            "method": method,
            "path": scope["path"],
            "route": route,
            "status": status,
            "milliseconds": round(seconds * 1000, 2),
            "client": scope["client"][0] if scope.get("client") else None,
        }
        if trace.traceparent:
            fields["traceparent"] = trace.traceparent
        if trace.span is not None:
            trace.span.end(route=route, status=status)
        level = logging.DEBUG if route in _QUIET else logging.INFO
        _access.log(level, "request", extra=fields)


def _timing_header(message: Message, milliseconds: Mapping[str, float]) -> list[tuple[bytes, bytes]]:
    """What an engine said it took, where the answer does not tell it already."""
    if not milliseconds or any(name == b"server-timing" for name, _ in message.get("headers", ())):
        return []
    return [(b"server-timing", server_timing(milliseconds).encode())]


async def _send_failure(scope: Scope, send: Send, request_id: str) -> None:
    problem = ProblemError(
        "internal_error",
        "The server failed to answer this request; the log has the reason under the request id.",
        hint="Report the request_id. Repeating the request is safe where it carries an Idempotency-Key.",
    )
    v2 = speaks_v2(scope["path"])
    content = document_v2(problem) if v2 else document(problem, instance=scope["path"], request_id=request_id)
    body, media_type = orjson.dumps(content), b"application/json" if v2 else b"application/problem+json"
    headers = [(b"content-type", media_type), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 500, "headers": headers})
    await send({"type": "http.response.body", "body": body})
