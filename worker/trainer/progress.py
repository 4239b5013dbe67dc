"""What the run says while it goes on: at least two lines a second while steps run, and an estimate of what is left."""

import time
from dataclasses import dataclass, field
from typing import Literal

from worker.job_process import emit

_EVERY = 0.5  # seconds between two lines, at most

Phase = Literal["load", "compile", "train", "validate", "test"]


@dataclass(kw_only=True)
class Progress:
    """`steps` counts all training steps of the run, `epochs` all epochs."""

    epochs: int
    steps: int
    epoch: int = 0
    step: int = 0
    loss: float | None = None
    lr: float | None = None
    _spoken: float = 0.0
    _asked: float = 0.0
    _images: int = 0
    _rate: float | None = None
    _rate_since: float = field(default_factory=time.monotonic)

    def due(self) -> bool:
        """Asked after each step: whether a line is needed now, because the next step would end too late for it."""
        now = time.monotonic()
        step, self._asked = now - self._asked, now
        return now - self._spoken + step >= _EVERY

    def count(self, images: int) -> None:
        self._images += images

    def restart_clock(self) -> None:
        """Time that went into something else than training steps is not to slow the rate."""
        self._images, self._rate_since = 0, time.monotonic()

    def say(self, phase: Phase, *, images_per_step: int = 0) -> None:
        now = time.monotonic()
        if self._images and now > self._rate_since:
            rate = self._images / (now - self._rate_since)
            self._rate = rate if self._rate is None else 0.8 * self._rate + 0.2 * rate
            self._images, self._rate_since = 0, now
        left = (self.steps - self.step) * images_per_step
        emit(
            "progress",
            {
                "phase": phase,
                "epoch": self.epoch,
                "epochs": self.epochs,
                "step": self.step,
                "steps": self.steps,
                "fraction": round(self.step / self.steps, 6),
                "images_per_second": round(self._rate, 1) if self._rate else None,
                "eta_seconds": round(left / self._rate, 1) if self._rate and images_per_step else None,
                "loss": self.loss,
                "lr": self.lr,
            },
        )
        self._spoken = now
