"""How much an engine holds at once. What is too much is refused when it arrives, not after it has waited."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from app.inference.pace import Pace

_PATIENCE = 0.7  # of a request's time may go by in waiting, as it is foreseen; the rest is for what was not


class Overloaded(Exception):
    """The engine holds as many images, or bytes, as it may, or more than it can compute in the request's time."""


@dataclass(frozen=True)
class Limits:
    """What an engine holds at once. One request alone is always let in, however large."""

    images: int
    bytes: int


class Admission:
    """Counts what is in the house."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._images = 0
        self._batched = 0
        self._bytes = 0
        self._pace = Pace()
        self._last_used = asyncio.get_running_loop().time()

    @property
    def images(self) -> int:
        """Images in the house now."""
        return self._images

    @property
    def idle_seconds(self) -> float:
        """Seconds since a client's request was here."""
        return 0.0 if self._images else asyncio.get_running_loop().time() - self._last_used

    @asynccontextmanager
    async def admit(
        self,
        *,
        images: int,
        size: int,
        timeout: float,  # noqa: ASYNC109 - in here
        batched: bool = True,
    ) -> AsyncIterator[float]:
        """A request of `size` bytes, in the house until the block ends. Gives its deadline, in the loop's time.

        `batched`: its images go into the batches of what serves, as most do; others tell nothing of that pace.
        Raises Overloaded at once, and TimeoutError where the block takes longer than `timeout` seconds.
        """
        full = self._images + images > self._limits.images or self._bytes + size > self._limits.bytes
        if self._images and full:
            raise Overloaded(f"{self._images} images wait already; at most {self._limits.images} may")
        wait = self._pace.wait(self._batched + images) if batched else 0.0
        if self._batched and wait > _PATIENCE * timeout:
            raise Overloaded(f"{self._images} images wait already; an answer would take {wait:.0f} s")
        arrived = asyncio.get_running_loop().time()
        deadline = arrived + timeout
        if batched and not self._batched:
            self._pace.begin(arrived)
        self._images += images
        self._batched += images * batched
        self._bytes += size
        try:
            async with asyncio.timeout_at(deadline):
                yield deadline
            if batched:
                self._pace.done(images, asyncio.get_running_loop().time())
        finally:
            self._images -= images
            self._batched -= images * batched
            self._bytes -= size
            self._last_used = asyncio.get_running_loop().time()
