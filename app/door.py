"""What stands before the framework on the addresses where something is computed.

While an engine is full most requests end here: what they cost is taken from those that are answered. And the plainest
request of all, images without a query, is answered from here by the very code of its route: on two cores, what FastAPI
takes to find no parameters in it is 3 to 5 % of all images a second.
"""

from starlette.datastructures import Headers, QueryParams
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import compile_path
from starlette.types import ASGIApp, Receive, Scope, Send

from app.admission import place
from app.disconnect import CLIENT_CLOSED_REQUEST
from app.problems import ProblemError
from app.responses import problem_response
from app.routes.classification import BY_DEFAULT, BY_MODEL, answer
from app.state import State
from models.catalog import ModelNotFound
from store import keys

#: Where something is computed: the routes with `admitted`, which a test holds.
COMPUTING = (
    BY_DEFAULT,
    BY_MODEL,
    "/v1/models/{name}:explain",
    "/v1/models/{name}:preprocess",
    "/v2/models/{name}/infer",
    "/v2/models/{name}/versions/{version}/infer",
)
_METHODS = frozenset({"POST", "PUT"})
_BODIES_THAT_NAME = ("multipart/", "application/json")  # a model: which one is not known before they are read
_MAX_NAME = 200  # a longer one is refused by its route


class Door:
    """Pure ASGI. Who has no key is told so, however full the engine is."""

    def __init__(self, app: ASGIApp, state: State) -> None:
        self._app = app
        self._state = state
        self._addresses = [(template, compile_path(template)[0]) for template in COMPUTING]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] in _METHODS:
            for template, pattern in self._addresses:
                found = pattern.match(scope["path"])
                if found is not None:
                    if await self._answered(scope, receive, send, template=template, **found.groupdict()):
                        return
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
    ) -> bool:
        """False where the route has to look at the request, of which nothing was read."""
        request, response = Request(scope, receive), None
        if self._refuses(request, name, version):
            response = problem_response(request, self._state.admission.refuse_full())
        elif template not in (BY_DEFAULT, BY_MODEL) or scope["query_string"] or len(name or "") > _MAX_NAME:
            return False
        scope["template"] = template
        try:
            if response is None:
                self._state.gate.check(keys.Scope.PREDICT, request.headers)
                with place(request, self._state):  # until the answer is sent, as by the route
                    await (await answer(request, self._state, None, name, None))(scope, receive, send)
                return True
        except ProblemError as problem:
            response = problem_response(request, problem)
        except ClientDisconnect:
            response = Response(status_code=CLIENT_CLOSED_REQUEST)
        await response(scope, receive, send)
        return True

    def _refuses(self, request: Request, name: str | None, version: str | None) -> bool:
        """Whether the engine of who is asked is full, and it is our client who asks."""
        headers: Headers = request.headers
        query = request.scope["query_string"]
        named = name or (QueryParams(query).get("model") if query else None)
        if named is None and headers.get("content-type", "").startswith(_BODIES_THAT_NAME):
            return False
        try:
            if not self._state.engines.refusing(f"{named}@{version}" if named and version else named):
                return False
            self._state.gate.check(keys.Scope.PREDICT, headers)
        except (ModelNotFound, ProblemError):
            return False  # the route says so
        return True
