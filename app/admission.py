"""The door of the routes that compute: a request goes in, or is refused, before its body is read.

`Door` stands before the framework: while an engine is full most requests end there, and what they cost is taken from
those that are answered. `admitted` gives a place to who has come in.
"""

from collections.abc import AsyncIterator

from starlette.datastructures import Headers, QueryParams
from starlette.requests import Request
from starlette.routing import compile_path
from starlette.types import ASGIApp, Receive, Scope, Send

from app import auth
from app.inference.client import ModelNotFound
from app.problems import ProblemError
from app.responses import problem_response
from app.state import State
from store import keys

#: Where something is computed: the routes with `admitted`, which a test holds.
COMPUTING = (
    "/v1/classify",
    "/v1/models/{name}:classify",
    "/v1/models/{name}:explain",
    "/v1/models/{name}:preprocess",
    "/v2/models/{name}/infer",
    "/v2/models/{name}/versions/{version}/infer",
)
_METHODS = frozenset({"POST", "PUT"})
_BODIES_THAT_NAME = ("multipart/", "application/json")  # a model: which one is not known before they are read


class Door:
    """Pure ASGI. Who has no key is told so by the route, however full the engine is."""

    def __init__(self, app: ASGIApp, state: State) -> None:
        self._app = app
        self._state = state
        self._addresses = [(template, compile_path(template)[0]) for template in COMPUTING]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] in _METHODS:
            for template, pattern in self._addresses:
                found = pattern.match(scope["path"])
                if found is not None:
                    if self._refuses(scope, **found.groupdict()):
                        scope["template"] = template
                        problem = self._state.admission.refuse_full()
                        await problem_response(Request(scope), problem)(scope, receive, send)
                        return
                    break
        await self._app(scope, receive, send)

    def _refuses(self, scope: Scope, name: str | None = None, version: str | None = None) -> bool:
        """Whether the engine of who is asked is full, and it is our client who asks."""
        headers = Headers(scope=scope)
        named = name or (QueryParams(scope["query_string"]).get("model") if scope["query_string"] else None)
        if named is None and headers.get("content-type", "").startswith(_BODIES_THAT_NAME):
            return False
        try:
            if not self._state.engines.refusing(f"{named}@{version}" if named and version else named):
                return False
            auth.check(self._state.gate, keys.Scope.PREDICT, headers)
        except (ModelNotFound, ProblemError):
            return False  # the route says so
        return True


async def admitted(request: Request) -> AsyncIterator[None]:
    """A dependency: the request has a place until its answer is sent. Raises TooManyError, UnavailableError.

    It comes after `needs`: who has no key is told so, however much there is to do.
    """
    state: State = request.app.state.edge
    declared = request.headers.get("content-length", "")
    size = min(int(declared), state.settings.max_request_bytes) if declared.isdigit() else 0
    ticket = state.admission.enter(state.gate.holder(request.headers.get("authorization")), size=size)
    request.scope["ticket"] = ticket  # `app/bodies.py` counts what arrives
    try:
        yield
    finally:
        ticket.leave()
