"""How fast work is done, so that a request that would wait too long is refused when it comes, not when it is late.

An engine looks at what it holds; an HTTP process at what it has under way with an engine, wherever that waits: in the
socket between them, too, and before its body is read.
"""

import math
import time
from dataclasses import dataclass

from app.inference.limits import Limits

_MEMORY_SECONDS = 5.0  # of work, after which what was measured counts a third
_EVIDENCE = 8  # images that must have been measured before anybody is refused by it
_NEARLY = 0.9  # of somebody's patience is as good as all of it


class Pace:
    """Seconds for each image while there is work, the latest counting most. Times are of any steady clock."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._images = 0.0
        self._measured = 0  # images, ever: of work that takes a second each, less than eight are ever remembered
        self._since = 0.0

    def begin(self, now: float) -> None:
        """The first work after none: from here on the time counts."""
        self._since = now

    def done(self, images: int, now: float) -> None:
        """So many images were finished. Those that were given up are not told: their time counts, they do not."""
        spent, self._since = now - self._since, now
        kept = math.exp(-spent / _MEMORY_SECONDS)
        self._seconds = self._seconds * kept + spent
        self._images = self._images * kept + images
        self._measured += images

    def wait(self, images: int) -> float:
        """Seconds until so many images would be finished; 0 as long as too little is known."""
        return images * self._seconds / self._images if self._measured >= _EVIDENCE else 0.0


@dataclass(frozen=True)
class _Refused:
    """A request that an engine had no place for: its images, its bytes, and for how many seconds it would have waited.

    Believed `until`, of time.monotonic.
    """

    until: float
    images: int
    size: int
    patience: float

    def includes(self, images: int, size: int, patience: float) -> bool:
        """Whether a request is at least as large and no more patient: then there is no place for it either."""
        return images >= self.images and size >= self.size and _NEARLY * patience <= self.patience


class Queue:
    """What one HTTP process has under way with one engine. Times are of time.monotonic."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._images = 0
        self._bytes = 0
        self._pace = Pace()
        self._refused = _Refused(until=-math.inf, images=0, size=0, patience=0.0)

    @property
    def idle(self) -> bool:
        return not self._images

    def wait(self, images: int) -> float:
        """Seconds after which so many more images would be answered; 0 where nothing is under way."""
        return self._pace.wait(self._images + images) if self._images else 0.0

    def refuses(self, images: int, size: int, *, patience: float) -> bool:
        """Whether so many more images, of `size` bytes, would take longer than `patience` seconds, or have no place.

        They have none beside what this process alone has there, or where the engine said so just now of a request that
        was no larger and about as patient.
        """
        if self._limits.full(images, size, held_images=self._images, held_bytes=self._bytes):
            return True
        full = time.monotonic() < self._refused.until and self._refused.includes(images, size, patience)
        return full or self.wait(images) > patience

    def begin(self, images: int, size: int) -> None:
        if not self._images:
            self._pace.begin(time.monotonic())
        self._images += images
        self._bytes += size

    def end(self, images: int, size: int, *, answered: bool) -> None:
        """What was begun was answered, or given up."""
        self._images -= images
        self._bytes -= size
        if answered:
            self._pace.done(images, time.monotonic())

    def full(self, images: int, size: int, *, patience: float, seconds: float) -> None:
        """The engine says that it has no place for so much, or not in time for who is so patient; for so long it is
        believed.

        While that is believed of a smaller or more patient request, another tells nothing new.
        """
        now, known = time.monotonic(), self._refused
        if now >= known.until or (images <= known.images and size <= known.size and patience >= known.patience):
            self._refused = _Refused(now + seconds, images, size, patience)
