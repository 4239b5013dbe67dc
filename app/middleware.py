"""The outermost layer of a request: it has an id and is accounted for, and is answered when code failed."""

import logging
import time
from collections.abc import Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import tracing
from app.account import Account, request_id_for
from app.problems import failure
from app.responses import server_timing, tell

_errors = logging.getLogger("resnetd.errors")


def answers_head(path: str) -> bool:
    """Whether HEAD is answered there as GET without the body (RFC 9110, 9.3.2); not so an endless stream."""
    return not path.endswith("/events")


class Envelope:
    """Pure ASGI, so that a disconnect reaches whoever awaits `receive` and bodies stream through untouched."""

    def __init__(self, app: ASGIApp, account: Account) -> None:
        self.app = app
        self.account = account

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        method = scope["method"]
        if method == "HEAD" and answers_head(scope["path"]):
            scope = {**scope, "method": "GET", "headers_only": True}
        request_id = scope["request_id"] = request_id_for(scope["headers"])
        trace = self.account.trace(scope, method)
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
            self.account.soon(scope, method, status, time.perf_counter() - started, trace)


def _timing_header(message: Message, milliseconds: Mapping[str, float]) -> list[tuple[bytes, bytes]]:
    """What an engine said it took, where the answer does not tell it already."""
    if not milliseconds or any(name == b"server-timing" for name, _ in message.get("headers", ())):
        return []
    return [(b"server-timing", server_timing(milliseconds).encode())]


async def _send_failure(scope: Scope, send: Send, request_id: str) -> None:
    told = tell(failure(), path=scope["path"], request_id=request_id)
    headers = [(b"content-type", told.media_type.encode()), (b"content-length", str(len(told.body)).encode())]
    await send({"type": "http.response.start", "status": told.status, "headers": headers})
    await send({"type": "http.response.body", "body": told.body})
