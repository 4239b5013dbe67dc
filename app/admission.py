"""A place in the house for a request that computes something, before its body is read."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from starlette.requests import Request

from app.state import State


@contextmanager
def place(request: Request, state: State) -> Iterator[None]:
    """Held until the block ends. Raises TooManyError, UnavailableError."""
    headers = request.headers
    declared = headers.get("content-length", "")
    size = min(int(declared), state.settings.max_request_bytes) if declared.isdigit() else 0
    ticket = state.admission.enter(state.gate.holder(headers.get("authorization")), size=size)
    request.scope["ticket"] = ticket  # `app/bodies.py` counts what arrives
    try:
        yield
    finally:
        ticket.leave()


async def admitted(request: Request) -> AsyncIterator[None]:
    """A dependency: the request has a place until its answer is sent. Raises TooManyError, UnavailableError.

    It comes after `needs`: who has no key is told so, however much there is to do.
    """
    with place(request, request.app.state.edge):
        yield
