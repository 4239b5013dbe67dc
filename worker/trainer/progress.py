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
    `validated` epochs are done, the last one's validation took `validation_seconds` (0 = none was measured yet), and
    the evaluation at the end is as much work as `final_validations`.
    """

    epochs: int
    steps: int
    images_per_step: int = 0
    phase: Phase = "load"
    epoch: int = 0
    step: int = 0
    loss: float | None = None
    lr: float | None = None
    validated: int = 0
    validation_seconds: float = 0.0
    final_validations: float = 0.0
    _spoken: float = 0.0
    _asked: float = 0.0
    _images: int = 0
    _rate: float | None = None
    _rate_since: float = field(default_factory=time.monotonic)
    _phase_since: float = field(default_factory=time.monotonic)
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

    def enter(self, phase: Phase) -> None:
        if phase != self.phase:
            self.phase, self._phase_since = phase, time.monotonic()

    def say(self, phase: Phase) -> None:
        with self._lock:
            self.enter(phase)
            self._measure()
            self._emit()

    def _measure(self) -> None:
        now = time.monotonic()
        if self._images and now > self._rate_since:
            rate = self._images / (now - self._rate_since)
            self._rate = rate if self._rate is None else 0.8 * self._rate + 0.2 * rate
            self._images, self._rate_since = 0, now

    def _emit(self) -> None:
        eta = self._eta()
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
                "eta_seconds": None if eta is None else round(eta, 1),
                "loss": self.loss,
                "lr": self.lr,
            },
        )
        self._spoken = time.monotonic()

    def _eta(self) -> float | None:
        """Seconds of the steps, validations and final evaluation to come; None before a step's time is known.

        Until a validation has shown how long they take, the steps alone. An end before the last epoch is not foreseen;
        once it is there, the final evaluation is all that is left: None where no validation has told of its time.
        """
        if not self._rate or not self.images_per_step:
            return None
        here, final = time.monotonic() - self._phase_since, self.final_validations * self.validation_seconds
        if self.phase == "test":
            return max(final - here, 0.0) if final else None
        steps = max(self.steps - self.step, 0) * self.images_per_step / self._rate
        validations = max(self.epochs - self.validated, 0) * self.validation_seconds
        if self.phase == "validate":
            validations -= min(here, validations, self.validation_seconds)
        return steps + validations + final
