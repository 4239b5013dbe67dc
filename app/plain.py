"""The plainest request of all, one image to be classified and nothing else said, answered by the protocol.

FastAPI and the layers of ASGI take time to find out that they have nothing to do (decision 14 in `docs/decisions/`). So
an image that is here as a whole goes from here to the engine, and its answer leaves in one write. It is the answer of
`app/routes/classification.py`; whatever is not plain is the application's.
"""

import logging
import time
from dataclasses import dataclass

from starlette.requests import Request
from starlette.types import Scope

from app import tracing
from app.account import Account, request_id_for
from app.admission import place
from app.bodies import announced
from app.disconnect import CLIENT_CLOSED_REQUEST
from app.doorkeeper import Asked, Doorkeeper
from app.image_requests import BodyKind, body_kind, image_of
from app.problems import ProblemError, failure
from app.responses import head_of, server_timing, tell
from app.routes.classification import BY_DEFAULT, BY_MODEL, document
from app.state import State
from store import keys

PLAIN = "plain"  # where the application's lifespan puts it

_MAX_NAME = 200  # a longer one is refused by its route
_MAX_BYTES = 2**20  # of a body; a longer one is counted while it comes
#: Headers that uvicorn has to do with: of who has come through a proxy, and of who waits to be told to go on.
_NOT_PLAIN = (b"x-forwarded-for", b"x-forwarded-proto", b"expect")
_errors = logging.getLogger("resnetd.errors")


@dataclass(frozen=True)
class PlainRequest:
    """An image's file, and who is asked."""

    scope: Scope
    asked: Asked
    body: bytes


class Plain:
    """Of one HTTP process."""

    def __init__(self, state: State, doorkeeper: Doorkeeper, account: Account) -> None:
        self._state = state
        self._doorkeeper = doorkeeper
        self._account = account

    def awaits(self, scope: Scope) -> bool:
        """Whether a request with this head may be a plain one, once its body is here; of our clients' alone."""
        if self._asked(scope) is None:
            return False
        try:
            self._state.gate.check(keys.Scope.PREDICT, Request(scope).headers)
        except ProblemError:
            return False
        return True

    def read(self, scope: Scope, body: bytes | bytearray) -> PlainRequest | None:
        """The request with this whole body, where it is a plain one."""
        asked, beginning = self._asked(scope), bytes(body[:1])
        if asked is None or not body or body_kind(_content_type(scope), beginning) is not BodyKind.IMAGE:
            return None
        if self._doorkeeper.undecided(scope):
            return None
        return PlainRequest(scope, asked, bytes(body))

    def _asked(self, scope: Scope) -> Asked | None:
        """Who is asked by a head that promises one image and says nothing more."""
        asked = self._doorkeeper.asked(scope)
        if asked is None or asked.template not in (BY_DEFAULT, BY_MODEL) or scope["query_string"]:
            return None
        if len(asked.name or "") > _MAX_NAME or any(name in _NOT_PLAIN for name, _ in scope["headers"]):
            return None
        most = min(_MAX_BYTES, self._state.settings.max_request_bytes)
        if not 0 < announced(Request(scope)) <= most:
            return None
        kind = body_kind(_content_type(scope), b"")
        return asked if kind in (None, BodyKind.IMAGE) else None

    async def answer(self, request: PlainRequest) -> tuple[bytes, bytes]:
        """A response's head without its last line, and its body. Cancelled where the client has left."""
        began, scope = time.perf_counter(), request.scope
        scope["template"] = request.asked.template
        request_id = scope["request_id"] = request_id_for(scope["headers"])
        trace = self._account.trace(scope, scope["method"])
        tracing.enter(trace)
        status = CLIENT_CLOSED_REQUEST
        try:
            status, headers, body = await self._classified(request, request_id)
        finally:
            self._account.soon(scope, scope["method"], status, time.perf_counter() - began, trace)
        if trace.milliseconds and "server-timing" not in headers:
            headers["server-timing"] = server_timing(trace.milliseconds)
        marks = {"x-request-id": request_id, "x-content-type-options": "nosniff"}
        return head_of(status, {**headers, "content-length": str(len(body)), **marks}), body

    async def _classified(self, request: PlainRequest, request_id: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body, whatever happens."""
        scope = request.scope
        try:
            body, timing = document(await self._work(request))
        except ProblemError as error:
            problem = error
        except Exception:
            _errors.exception("a request failed", extra={"request_id": request_id, "path": scope["path"]})
            problem = failure()
        else:
            return 200, {"server-timing": timing, "content-type": "application/json"}, body
        told = tell(problem, path=scope["path"], request_id=request_id)
        return told.status, {**problem.headers, "content-type": told.media_type}, told.body

    async def _work(self, request: PlainRequest) -> dict[str, object]:
        """Raises ProblemError."""
        state, read = self._state, Request(request.scope)
        state.gate.check(keys.Scope.PREDICT, read.headers)
        with place(read, state) as ticket:
            ticket.hold(len(request.body))
            image = image_of(request.body, state.settings)
            return await state.classification.classify([image], model=request.asked.name, top_k=None)


def _content_type(scope: Scope) -> str:
    return next((value for name, value in scope["headers"] if name == b"content-type"), b"").decode("latin-1")
