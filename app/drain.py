"""Leaving in good order: what a process that was told to stop still does, and for how long."""

import math
import time


class Drain:
    """Whether the process is leaving, and whether somebody has asked something lately."""

    def __init__(self) -> None:
        self.leaving = False
        self._asked = -math.inf

    def asked(self) -> None:
        """A request came."""
        self._asked = time.monotonic()

    def lately(self, seconds: float) -> bool:
        """Whether a request came within the last `seconds`: then more are likely on their way."""
        return time.monotonic() - self._asked < seconds
