"""What the run says while it goes on: two lines a second, however long a step takes; and what is left, by estimate."""

import threading
import time
from dataclasses import dataclass, field
from typing import Literal

from worker.job_process import emit

_EVERY = 0.5  # seconds between two lines

Phase = Literal["load", "compile", "train", "validate", "test"]


@dataclass(kw_only=True)
class Progress:
    """`steps` counts all training steps of the run, `epochs` all epochs.

    The thread that trains says how far it is; another may repeat it meanwhile. Steps in the lines never go back.
    """

    epochs: int
    steps: int
    images_per_step: int = 0
    phase: Phase = "load"
    epoch: int = 0
    step: int = 0
    loss: float | None = None
    lr: float | None = None
    _spoken: float = 0.0
    _asked: float = 0.0
    _images: int = 0
    _rate: float | None = None
    _rate_since: float = field(default_factory=time.monotonic)
    _lock: threading.Lock = field(default_factory=threading.Lock)

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

    def repeat_when_late(self) -> None:
        """Say the same again where nothing was said for half a second; for a thread beside the one that trains."""
        with self._lock:
            if time.monotonic() - self._spoken >= _EVERY:
                self._emit()

    def say(self, phase: Phase) -> None:
        with self._lock:
            self.phase = phase
            self._measure()
            self._emit()

    def _measure(self) -> None:
        now = time.monotonic()
        if self._images and now > self._rate_since:
            rate = self._images / (now - self._rate_since)
            self._rate = rate if self._rate is None else 0.8 * self._rate + 0.2 * rate
            self._images, self._rate_since = 0, now

    def _emit(self) -> None:
        left = (self.steps - self.step) * self.images_per_step
        emit(
            "progress",
            {
                "phase": self.phase,
                "epoch": self.epoch,
                "epochs": self.epochs,
                "step": self.step,
                "steps": self.steps,
                "fraction": round(self.step / self.steps, 6),
                "images_per_second": round(self._rate, 1) if self._rate else None,
                "eta_seconds": round(left / self._rate, 1) if self._rate and self.images_per_step else None,
                "loss": self.loss,
                "lr": self.lr,
            },
        )
        self._spoken = time.monotonic()
