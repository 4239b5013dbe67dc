"""What stands before the framework on the addresses where something is computed.

While an engine is full requests end here, if not before (`app/turning_away.py`): a body's first bytes, which say
whether it may name a model, come later than its head sometimes. And the plainest request of all, images without a
query, is answered from here by the very code of its route: on two cores, what FastAPI takes to find no parameters in it
is 3 to 5 % of all images a second.
"""

import asyncio

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.admission import place
from app.disconnect import CLIENT_CLOSED_REQUEST
from app.doorkeeper import Asked, Doorkeeper
from app.problems import ProblemError
from app.responses import problem_response
from app.routes.classification import BY_DEFAULT, BY_MODEL, answer
from app.state import State
from store import keys

_MAX_NAME = 200  # a longer one is refused by its route
_GLANCE_SECONDS = 0.01  # for a body's first byte, which comes with the head or not much later


class Door:
    """Pure ASGI. Who has no key is told so, however full the engine is."""

    def __init__(self, app: ASGIApp, state: State, doorkeeper: Doorkeeper) -> None:
        self._app = app
        self._state = state
        self._doorkeeper = doorkeeper

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = self._doorkeeper.asked(scope) if scope["type"] == "http" else None
        if asked is None:
            await self._app(scope, receive, send)
            return
        problem, request = await self._refusal(Request(scope, receive), asked)
        if problem is not None:
            scope["template"] = asked.template
            await problem_response(request, problem)(scope, request.receive, send)
        elif _is_plain(scope, asked):
            scope["template"] = asked.template
            await self._answer_plain(request, send, name=asked.name)
        else:
            await self._app(scope, request.receive, send)

    async def _refusal(self, request: Request, asked: Asked) -> tuple[ProblemError | None, Request]:
        """Why it is answered with 503 at once, or None; and the request, which gives the whole body from here on."""
        problem = self._doorkeeper.refusal(request.scope, asked, b"")
        if problem is None and self._doorkeeper.undecided(request.scope):
            glance = _Glance(request.receive)
            problem = self._doorkeeper.refusal(request.scope, asked, await glance.beginning())
            request = Request(request.scope, glance)
        return problem, request

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


def _is_plain(scope: Scope, asked: Asked) -> bool:
    """Whether the address says no more than which model; that a name is too long is the route's to say."""
    plain = asked.template in (BY_DEFAULT, BY_MODEL) and not scope["query_string"]
    return plain and len(asked.name or "") <= _MAX_NAME


class _Glance:
    """Looks at a body's beginning; whoever receives from this receives that, too."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._seen: Message | None = None

    async def __call__(self) -> Message:
        seen, self._seen = self._seen, None
        return await self._receive() if seen is None else seen

    async def beginning(self) -> bytes:
        """The body's first bytes; none where they are not here in a moment."""
        try:
            async with asyncio.timeout(_GLANCE_SECONDS):
                self._seen = await self._receive()
        except TimeoutError:
            return b""
        return bytes(self._seen.get("body", b""))
