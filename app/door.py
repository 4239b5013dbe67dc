"""What stands before the framework on the addresses where something is computed.

While an engine is full most requests end here: what they cost is taken from those that are answered. And the plainest
request of all, images without a query, is answered from here by the very code of its route: on two cores, what FastAPI
takes to find no parameters in it is 3 to 5 % of all images a second.
"""

import asyncio

from starlette.datastructures import QueryParams
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.admission import announced, place
from app.disconnect import CLIENT_CLOSED_REQUEST
from app.image_requests import BodyKind, body_kind
from app.problems import ProblemError
from app.responses import problem_response
from app.routes.classification import BY_DEFAULT, BY_MODEL, answer
from app.state import State
from models.catalog import ModelNotFound
from store import keys

_UPLOAD, _POST = frozenset({"POST", "PUT"}), frozenset({"POST"})
#: Where something is computed: what an engine is asked there, and by which methods. The routes with `admitted`, which a
#: test holds.
COMPUTING = {
    BY_DEFAULT: ("classify", _UPLOAD),
    BY_MODEL: ("classify", _UPLOAD),
    "/v1/models/{name}:explain": ("explain", _POST),
    "/v1/models/{name}:preprocess": ("preprocess", _POST),
    "/v2/models/{name}/infer": ("infer", _POST),
    "/v2/models/{name}/versions/{version}/infer": ("infer", _POST),
}
_MAX_NAME = 200  # a longer one is refused by its route
_GLANCE_SECONDS = 0.01  # for a body's first byte, which comes with the head or not much later


class Door:
    """Pure ASGI. Who has no key is told so, however full the engine is."""

    def __init__(self, app: ASGIApp, state: State) -> None:
        self._app = app
        self._state = state
        self._addresses = [(template, compile_path(template)[0]) for template in COMPUTING]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            for template, pattern in self._addresses:
                found = pattern.match(scope["path"])
                if found is None:
                    continue
                if scope["method"] in COMPUTING[template][1]:
                    left = await self._answered(scope, receive, send, template=template, **found.groupdict())
                    if left is None:
                        return
                    receive = left
                break
        await self._app(scope, receive, send)

    async def _answered(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        template: str,
        name: str | None = None,
        version: str | None = None,
    ) -> Receive | None:
        """None where it was answered; else where the route, which has to look at it, receives the whole request."""
        request, response = Request(scope, receive), None
        query = scope["query_string"]
        named = name or (QueryParams(query).get("model") if query else None)
        if self._full(request, COMPUTING[template][0], f"{named}@{version}" if named and version else named):
            refused = True
            if named is None:  # nobody knows who is asked before what may name a model was read
                glance = _Glance(receive)
                receive, refused = glance, await glance.kind(request) is BodyKind.IMAGE
                request = Request(scope, receive)
            if refused:
                response = problem_response(request, self._state.admission.refuse_full())
        if response is None and (template not in (BY_DEFAULT, BY_MODEL) or query or len(name or "") > _MAX_NAME):
            return receive
        scope["template"] = template
        try:
            if response is None:
                self._state.gate.check(keys.Scope.PREDICT, request.headers)
                with place(request, self._state):  # until the answer is sent, as by the route
                    await (await answer(request, self._state, None, name, None))(scope, receive, send)
                return None
        except ProblemError as problem:
            response = problem_response(request, problem)
        except ClientDisconnect:
            response = Response(status_code=CLIENT_CLOSED_REQUEST)
        await response(scope, receive, send)
        return None

    def _full(self, request: Request, op: str, ref: str | None) -> bool:
        """Whether the engine of who is asked is full, and it is our client who asks."""
        try:
            if not self._state.engines.refusing(ref, op, size=announced(request)):
                return False
            self._state.gate.check(keys.Scope.PREDICT, request.headers)
        except (ModelNotFound, ProblemError):
            return False  # the route says so
        return True


class _Glance:
    """Looks at a body's beginning; whoever receives from this receives that, too."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._seen: Message | None = None

    async def __call__(self) -> Message:
        seen, self._seen = self._seen, None
        return await self._receive() if seen is None else seen

    async def kind(self, request: Request) -> BodyKind | None:
        """How the request carries its images; None where that takes a byte which is not here yet."""
        content_type = request.headers.get("content-type", "")
        found = body_kind(content_type, b"")
        if found is not None:
            return found
        try:
            async with asyncio.timeout(_GLANCE_SECONDS):
                self._seen = await self._receive()
        except TimeoutError:
            return None
        return body_kind(content_type, self._seen.get("body", b""))
