"""What is kept of each request: its id, its trace, its log line, its figures."""

import asyncio
import logging
import re
from typing import TYPE_CHECKING
from uuid import uuid4

from starlette.datastructures import Headers
from starlette.types import Scope

from app import tracing
from app.metrics import Metrics
from app.problems import ProblemError

if TYPE_CHECKING:
    from app.telemetry import Telemetry

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._~+/=-]{1,128}")
_OTHER, _UNMATCHED = "other", "unmatched"  # what metrics call a method, and the route of an address, that there is not
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})
_QUIET = frozenset({"/livez", "/readyz", "/metrics"})
_access = logging.getLogger("resnetd.access")


def request_id_for(headers: list[tuple[bytes, bytes]]) -> str:
    """The client's X-Request-ID where it is short and plain, else a new one."""
    for name, value in headers:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return value.decode()
    return f"req_{uuid4().hex}"


class Account:
    """Of one HTTP process. A request's scope has its `request_id`, and its `template` or `route` once that is known."""

    def __init__(self, metrics: Metrics, telemetry: "Telemetry | None") -> None:
        self._metrics = metrics
        self._telemetry = telemetry

    def trace(self, scope: Scope, method: str) -> tracing.Trace:
        headers = Headers(scope=scope)
        came = tracing.read(headers.get("traceparent"))
        if self._telemetry is None:
            return tracing.Trace(came)
        state = headers.getlist("tracestate")
        path, request_id = scope["path"], scope["request_id"]
        return self._telemetry.begin(came, tracestate=state, method=method, path=path, request_id=request_id)

    def soon(self, scope: Scope, method: str, status: int, seconds: float, trace: tracing.Trace) -> None:
        """Record the request when the answer is out: the loop writes what was sent once it has nothing else to do."""
        asyncio.get_running_loop().call_soon(self._record, scope, method, status, seconds, trace)

    def _record(self, scope: Scope, method: str, status: int, seconds: float, trace: tracing.Trace) -> None:
        route = str(scope.get("template") or getattr(scope.get("route"), "path", _UNMATCHED))
        method = method if method in _METHODS else _OTHER
        self._metrics.requests.labels(method, route, str(status)).inc()
        self._metrics.duration.labels(method, route).observe(seconds)
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

    def unreadable(
        self, problem: ProblemError, *, path: str, request_id: str, client: str | None, answered: int
    ) -> None:
        """What is no HTTP was answered with this status; 0 where the application has the request and records it."""
        if answered:
            self._metrics.requests.labels(_OTHER, _UNMATCHED, str(answered)).inc()
        fields = {"request_id": request_id, "path": path, "status": problem.status, "code": problem.code}
        _access.info("a request that cannot be read", extra={**fields, "client": client})
