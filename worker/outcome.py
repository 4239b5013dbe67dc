"""What the end of a job's process means."""

import errno
import signal
from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Any

from jobs.model import JobError
from worker.job_process import DISK_FULL, DONE, OUT_OF_MEMORY, REFUSED, STOPPED
from worker.stopping import Reason

_FULL = JobError(code="disk_full", message="No space is left in the data directory.", hint="Free some, then retry.")
_TOO_LONG = JobError(
    code="max_seconds",
    message="The job ran for as long as its max_seconds allow.",
    hint="Retry it: it goes on from its last checkpoint, with as many seconds again.",
)
UNPUBLISHABLE = JobError(
    code="publishing_failed",
    message="The result could not be published: the worker died of it again and again.",
    hint="The worker's log says how. The job's folder holds the result; retry the job when the cause is gone.",
)


class Ending(StrEnum):
    #: It said its result.
    DONE = auto()
    #: It stopped because it was told to; what it has written so far is where it goes on.
    STOPPED = auto()
    #: The request, the data, the disk or the memory is at fault: trying again would end the same way.
    FAILED = auto()
    #: It died.
    CRASHED = auto()


@dataclass(frozen=True)
class Outcome:
    ending: Ending
    error: JobError | None = None
    result: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Death:
    """What is known of a process's end.

    `code` is its exit status (negative: the signal that ended it), `result` and `error` are what it said of itself,
    `stderr` the end of its log, `stopped` why it was told to stop, and `oom` whether the kernel has just killed a
    process for want of memory.
    """

    code: int
    stderr: str
    result: dict[str, Any] | None = None
    error: JobError | None = None
    stopped: Reason | None = None
    oom: bool = False


def classify(death: Death) -> Outcome:
    """A process that ended by itself is believed; the reason for which it was stopped explains the rest."""
    crash = JobError(code="crashed", message=_death(death.code), hint=_last_lines(death.stderr), log=death.stderr)
    return _said(death) or _stopped(death) or _out_of_memory(death) or Outcome(Ending.CRASHED, crash)


def _said(death: Death) -> Outcome | None:
    if death.code == DONE and death.result is not None:
        return Outcome(Ending.DONE, result=death.result)
    if death.code == DISK_FULL:
        return Outcome(Ending.FAILED, death.error or _FULL)
    if death.code == REFUSED and death.error is not None:
        return Outcome(Ending.FAILED, death.error)
    return None


def _stopped(death: Death) -> Outcome | None:
    ours = death.code in (-signal.SIGTERM, -signal.SIGKILL, -signal.SIGUSR1) and death.stopped is not None
    if death.code != STOPPED and not ours:
        return None
    if death.stopped is Reason.MAX_SECONDS:
        return Outcome(Ending.FAILED, _TOO_LONG)
    if death.stopped is Reason.STALLED:
        return Outcome(Ending.CRASHED, _stalled(death.stderr))
    return Outcome(Ending.STOPPED)


def _out_of_memory(death: Death) -> Outcome | None:
    if death.code != -signal.SIGKILL or not death.oom:
        return None
    message = "The job's process was ended by the kernel: the machine has too little memory."
    error = JobError.model_validate({**OUT_OF_MEMORY, "message": message, "log": death.stderr})
    return Outcome(Ending.FAILED, error)


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


def _stalled(stderr: str) -> JobError:
    message = "The job's process said nothing for too long and was ended."
    return JobError(code="stalled", message=message, hint=_where_it_stood(stderr), log=stderr)


def _where_it_stood(stderr: str) -> str:
    """The innermost calls of a dump by faulthandler, which tells the most recent call first."""
    _, dumped, stack = stderr.rpartition("Current thread ")
    calls = [line.strip() for line in stack.splitlines()[1:] if line.strip().startswith("File ")]
    return "It stood at: " + " / ".join(calls[:3]) if dumped and calls else _last_lines(stderr)


def _last_lines(stderr: str) -> str:
    lines = [line for line in stderr.strip().splitlines() if line.strip()]
    return "The last it said: " + " / ".join(lines[-3:]) if lines else ""
