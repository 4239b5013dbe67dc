"""Work for somebody who may hang up meanwhile."""

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from typing import TypeVar

from starlette.requests import ClientDisconnect, Request

CLIENT_CLOSED_REQUEST = 499  # nginx's code for a log line; nobody is left to read the answer

T = TypeVar("T")


async def unless_gone(request: Request, work: Awaitable[T]) -> T:
    """The result of `work`, which is dropped when the client hangs up. Raises ClientDisconnect.

    The request's body has been read: the next message is the disconnect.
    """
    loop, waiting = asyncio.get_running_loop(), asyncio.timeout(None)

    def drop(_: object) -> None:
        with suppress(RuntimeError):  # the answer came in the same moment
            waiting.reschedule(loop.time())

    gone = asyncio.ensure_future(request.receive())
    gone.add_done_callback(drop)
    try:
        async with waiting:  # the work stays in this task: one less to start, and to wake, for each answer
            return await work
    except TimeoutError:
        if waiting.expired():
            raise ClientDisconnect from None
        raise
    finally:
        gone.remove_done_callback(drop)
        gone.cancel()
