"""A place in the house for a request that computes something, before its body is read."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from starlette.requests import Request

from app.bodies import announced
from app.services.admission import Ticket
from app.state import State


@contextmanager
def place(request: Request, state: State) -> Iterator[Ticket]:
    """Held until the block ends. Raises TooManyError, UnavailableError."""
    key = state.gate.holder(request.headers.get("authorization"))
    size = min(announced(request), state.settings.max_request_bytes)  # a larger body is refused as too large
    ticket = state.admission.enter(key, announced=size)
    request.scope["ticket"] = ticket  # `app/bodies.py` counts what arrives
    try:
        yield ticket
    finally:
        ticket.leave()


async def admitted(request: Request) -> AsyncIterator[None]:
    """A dependency: the request has a place until its answer is sent. Raises TooManyError, UnavailableError.

    It comes after `needs`: who has no key is told so, however much there is to do.
    """
    with place(request, request.app.state.edge):
        yield
