"""How far an evaluation is."""

import time
from dataclasses import dataclass, field

from worker.job_process import emit


@dataclass
class Progress:
    """Images done, how fast, and how long still. Its rate is that of this claim.

    `total` is 0 until it is known.
    """

    total: int = 0
    done: int = 0
    phase: str = "load"
    rate: float | None = None
    _began: float = field(default_factory=time.monotonic)
    _from: int = 0

    def start(self) -> None:
        """The clock of images per second runs from here."""
        self.phase, self._began, self._from = "evaluate", time.monotonic(), self.done

    def at(self, done: int) -> None:
        self.done = done
        if (now := time.monotonic()) > self._began:
            self.rate = round((done - self._from) / (now - self._began), 1)

    def say(self) -> None:
        left = (self.total - self.done) / self.rate if self.rate else None
        emit(
            "progress",
            {
                "phase": self.phase,
                "done": self.done,
                "total": self.total,
                "fraction": round(self.done / self.total, 4) if self.total else 0.0,
                "images_per_second": self.rate,
                "eta_seconds": None if left is None else round(left, 1),
            },
        )
