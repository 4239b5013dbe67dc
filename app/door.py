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
    "/v1/explain": ("explain", _UPLOAD),
    "/v1/models/{name}:explain": ("explain", _UPLOAD),
    "/v1/preprocess": ("preprocess", _UPLOAD),
    "/v1/models/{name}:preprocess": ("preprocess", _UPLOAD),
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
        asked = self._asked(scope) if scope["type"] == "http" else None
        if asked is None:
            await self._app(scope, receive, send)
            return
        template, name, version = asked
        problem, request = await self._refusal(Request(scope, receive), template, name, version)
        if problem is not None:
            scope["template"] = template
            await problem_response(request, problem)(scope, request.receive, send)
        elif _is_plain(scope, template, name):
            scope["template"] = template
            await self._answer_plain(request, send, name=name)
        else:
            await self._app(scope, request.receive, send)

    def _asked(self, scope: Scope) -> tuple[str, str | None, str | None] | None:
        """Which of the addresses this is, with the model's name and version in it; None where it is none of them."""
        for template, pattern in self._addresses:
            found = pattern.match(scope["path"])
            if found is not None:
                parts = found.groupdict()
                computes = scope["method"] in COMPUTING[template][1]
                return (template, parts.get("name"), parts.get("version")) if computes else None
        return None

    async def _refusal(
        self, request: Request, template: str, name: str | None, version: str | None
    ) -> tuple[ProblemError | None, Request]:
        """Why it is answered with 503 at once, or None; and the request, which gives the whole body from here on."""
        query = request.scope["query_string"]
        named = name or (QueryParams(query).get("model") if query else None)
        if not self._full(request, COMPUTING[template][0], f"{named}@{version}" if named and version else named):
            return None, request
        if named is None:  # nobody knows who is asked before what may name a model was read
            glance = _Glance(request.receive)
            kind = await glance.kind(request)
            request = Request(request.scope, glance)
            if kind is not BodyKind.IMAGE:
                return None, request
        return self._state.admission.refuse_full(), request

    async def _answer_plain(self, request: Request, send: Send, *, name: str | None) -> None:
        """As the route does: with a place until the answer is sent, and its refusals."""
        try:
            self._state.gate.check(keys.Scope.PREDICT, request.headers)
            with place(request, self._state):
                await (await answer(request, self._state, None, name, None))(request.scope, request.receive, send)
        except ProblemError as problem:
            response = problem_response(request, problem)
        except ClientDisconnect:
            response = Response(status_code=CLIENT_CLOSED_REQUEST)
        else:
            return
        await response(request.scope, request.receive, send)

    def _full(self, request: Request, op: str, ref: str | None) -> bool:
        """Whether the engine of who is asked is full, and it is our client who asks."""
        try:
            if not self._state.engines.refusing(ref, op, size=announced(request)):
                return False
            self._state.gate.check(keys.Scope.PREDICT, request.headers)
        except (ModelNotFound, ProblemError):
            return False  # the route says so
        return True


def _is_plain(scope: Scope, template: str, name: str | None) -> bool:
    """Whether the address says no more than which model; that a name is too long is the route's to say."""
    return template in (BY_DEFAULT, BY_MODEL) and not scope["query_string"] and len(name or "") <= _MAX_NAME


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
