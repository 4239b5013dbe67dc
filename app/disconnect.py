"""Work for somebody who may hang up meanwhile."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from starlette.requests import ClientDisconnect, Request

CLIENT_CLOSED_REQUEST = 499  # nginx's code for a log line; nobody is left to read the answer

T = TypeVar("T")


async def unless_gone(request: Request, work: Awaitable[T]) -> T:
    """The result of `work`, which is dropped when the client hangs up. Raises ClientDisconnect.

    The request's body has been read: the next message is the disconnect.
    """
    working = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        gone.cancel()
