"""Why a job's process is being stopped, and how long it may take to do so in good order."""

import time
from enum import StrEnum, auto

GRACE_SECONDS = 20.0  # for a last checkpoint
CANCEL_GRACE_SECONDS = 2.0  # nothing of a cancelled job has to be saved
DUMP_SECONDS = 1.0  # for writing its stacks down


class Reason(StrEnum):
    #: The job was cancelled.
    CANCELLED = auto()
    #: It ran for as long as it may.
    MAX_SECONDS = auto()
    #: The worker goes away.
    DRAINED = auto()
    #: It is to be paused.
    PAUSED = auto()
    #: It has said nothing for too long.
    STALLED = auto()


class Stopping:
    """The one stop of a process. Another reason on top may leave it less time and never more."""

    def __init__(self, drain_seconds: float) -> None:
        self._grace = {
            Reason.CANCELLED: CANCEL_GRACE_SECONDS,
            Reason.DRAINED: drain_seconds,
            Reason.STALLED: DUMP_SECONDS,
        }
        self._kill_at = float("inf")
        self.reason: Reason | None = None

    def begin(self, reason: Reason) -> bool:
        """True when the process is to be told now; False where it was told before."""
        first = self.reason is None
        if first or reason is Reason.CANCELLED:
            self.reason = reason
        self._kill_at = min(self._kill_at, time.monotonic() + self._grace.get(reason, GRACE_SECONDS))
        return first

    @property
    def seconds_left(self) -> float:
        """Until the process is killed; infinite while nobody stops it."""
        return max(0.0, self._kill_at - time.monotonic())
