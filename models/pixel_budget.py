"""How many pixels may be decoded at once in a process: what an image takes in memory is known by its size alone."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class PixelBudget:
    """At most `most` pixels at a time, over all threads; an image that has more goes alone."""

    def __init__(self, most: int) -> None:
        self._most, self._taken = most, 0
        self._given_back = threading.Condition()

    @contextmanager
    def of(self, pixels: int) -> Iterator[None]:
        """Wait until there is room for an image of so many pixels, and keep it for the context."""
        with self._given_back:
            self._given_back.wait_for(lambda: not self._taken or self._taken + pixels <= self._most)
            self._taken += pixels
        try:
            yield
        finally:
            with self._given_back:
                self._taken -= pixels
                self._given_back.notify_all()
