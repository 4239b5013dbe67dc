"""How much an engine holds at once. What is too much is refused when it arrives, not after it has waited."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.inference.limits import Limits
from app.inference.pace import Pace

_PATIENCE = 0.7  # of a request's time may go by in waiting, as it is foreseen; the rest is for what was not


class Overloaded(Exception):
    """The engine holds as many images, or bytes, as it may, or more than it can compute in the request's time."""


class Admission:
    """Counts what is in the house of one kind of work, whose requests wait for each other and for no others."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._bytes = 0
        self._pace = Pace()
        self.images = 0  # in the house now
        self.last_used = asyncio.get_running_loop().time()  # when a request was here last, in the loop's time

    @asynccontextmanager
    async def admit(
        self,
        *,
        images: int,
        size: int,
        timeout: float,  # noqa: ASYNC109 - in here
    ) -> AsyncIterator[float]:
        """A request of `size` bytes, in the house until the block ends. Gives its deadline, in the loop's time.

        Raises Overloaded at once, and TimeoutError where the block takes longer than `timeout` seconds.
        """
        if self._limits.full(images, size, held_images=self.images, held_bytes=self._bytes):
            raise Overloaded(f"{self.images} images wait already; at most {self._limits.images} may")
        wait = self._pace.wait(self.images + images)
        if self.images and wait > _PATIENCE * timeout:
            raise Overloaded(f"{self.images} images wait already; an answer would take {wait:.0f} s")
        arrived = asyncio.get_running_loop().time()
        deadline = arrived + timeout
        if not self.images:
            self._pace.begin(arrived)
        self.images += images
        self._bytes += size
        try:
            async with asyncio.timeout_at(deadline):
                yield deadline
            self._pace.done(images, asyncio.get_running_loop().time())
        finally:
            self.images -= images
            self._bytes -= size
            self.last_used = asyncio.get_running_loop().time()


class Places:
    """Places for each kind of work: what is slow takes none from what is fast, and tells nothing of its pace."""

    def __init__(self, limits: Limits) -> None:
        self.served = Admission(limits)  # in the batches of the runtime that serves, as most is
        self.normalised = Admission(limits)  # in batches of the float32 network
        self.explained = Admission(limits.shown)  # one image after the other
        self.prepared = Admission(limits.shown)

    @property
    def images(self) -> int:
        """Images in the house now."""
        return self.served.images + self.normalised.images + self.explained.images + self.prepared.images

    @property
    def idle_seconds(self) -> float:
        """Seconds since a client's request was here."""
        places = (self.served, self.normalised, self.explained, self.prepared)
        last = max(each.last_used for each in places)
        return 0.0 if self.images else asyncio.get_running_loop().time() - last
