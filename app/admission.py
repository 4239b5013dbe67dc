"""The door of the routes that compute: a request goes in, or is refused, before its body is read."""

from collections.abc import AsyncIterator

from starlette.requests import Request

from app.inference.client import ModelNotFound
from app.state import State

_BODIES_THAT_NAME = ("multipart/", "application/json")  # a model: which one is not known before they are read


async def admitted(request: Request) -> AsyncIterator[None]:
    """A dependency: the request has a place until its answer is sent. Raises TooManyError, UnavailableError.

    It comes after `needs`: who has no key is told so, however much there is to do.
    """
    state: State = request.app.state.edge
    if _engine_is_full(request, state):
        raise state.admission.refuse_full()
    declared = request.headers.get("content-length", "")
    size = min(int(declared), state.settings.max_request_bytes) if declared.isdigit() else 0
    ticket = state.admission.enter(state.gate.holder(request.headers.get("authorization")), size=size)
    request.scope["ticket"] = ticket  # `app/bodies.py` counts what arrives
    try:
        yield
    finally:
        ticket.leave()


def _engine_is_full(request: Request, state: State) -> bool:
    named = request.path_params.get("name") or request.query_params.get("model")
    if named is None and request.headers.get("content-type", "").startswith(_BODIES_THAT_NAME):
        return False
    version = request.path_params.get("version")
    try:
        return state.engines.refusing(f"{named}@{version}" if named and version else named)
    except ModelNotFound:
        return False  # the route says so
