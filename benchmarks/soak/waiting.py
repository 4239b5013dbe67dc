"""Waiting for something outside, which tells nobody when it happens."""

import asyncio
from collections.abc import Awaitable, Callable


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - files and processes set no event
        await asyncio.sleep(0.02)


async def until_it_says(ask: Callable[[], Awaitable[bool]]) -> None:
    while not await ask():  # noqa: ASYNC110 - likewise
        await asyncio.sleep(0.02)
