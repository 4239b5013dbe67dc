"""What the end of a job's process means."""

import errno
import signal
from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Any

from jobs.model import JobError
from worker.job_process import DISK_FULL, DONE, REFUSED, STOPPED

_FULL = JobError(code="disk_full", message="No space is left in the data directory.", hint="Free some, then retry.")


class Ending(StrEnum):
    #: It said its result.
    DONE = auto()
    #: It stopped in good order because it was told to; what it did so far is on disk.
    STOPPED = auto()
    #: The request, the data or the disk is at fault: trying again would end the same way.
    FAILED = auto()
    #: It died.
    CRASHED = auto()


@dataclass(frozen=True)
class Outcome:
    ending: Ending
    error: JobError | None = None
    result: dict[str, Any] | None = None


def classify(code: int, *, result: dict[str, Any] | None, error: JobError | None, stderr: str) -> Outcome:
    """Read an exit status (negative: the signal that ended it) together with the last things the process said."""
    if code == DONE and result is not None:
        return Outcome(Ending.DONE, result=result)
    if code == STOPPED:
        return Outcome(Ending.STOPPED)
    if code == DISK_FULL:
        full = JobError(
            code="disk_full", message="No space is left in the data directory.", hint="Free some, then retry."
        )
        return Outcome(Ending.FAILED, error or full)
    if code == REFUSED and error is not None:
        return Outcome(Ending.FAILED, error)
    return Outcome(Ending.CRASHED, JobError(code="crashed", message=_death(code), hint=_last_lines(stderr)))


def own_failure(error: Exception) -> Outcome:
    """What a failure of the supervisor itself means for its job."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Outcome(Ending.FAILED, _FULL)
    message = f"The worker failed over the job: {type(error).__name__}: {error}"
    return Outcome(Ending.CRASHED, JobError(code="worker_failed", message=message))


def _death(code: int) -> str:
    if code >= 0:
        return f"The job's process ended with exit status {code} and no result."
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = str(-code)
    return f"The job's process was ended by {name}."


def _last_lines(stderr: str) -> str:
    lines = [line for line in stderr.strip().splitlines() if line.strip()]
    return "The last it said: " + " / ".join(lines[-3:]) if lines else ""
