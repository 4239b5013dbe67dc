"""Named points at which a test may hurt a process: `RESNETD_FAULT=supervisor.claimed:1:kill`.

An entry is `point:n:action`: at this process's nth passing of the point (1 is the first) it is killed (`kill`), stopped
and continued after some seconds (`stop:40`), or an exception comes (`raise`). Entries are separated by commas. With
`RESNETD_FAULT_ONCE`, a folder, each entry fires once over all processes that have the same folder.
"""

import os
import signal
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

#: Every point, and the moment that it names.
POINTS: dict[str, str] = {
    "submit.before": "a valid submission is about to be written to the ledger",
    "submit.written": "a submission is in the ledger",
    "submit.rung": "a submission's bell is handed over, its answer is not sent yet",
    "verb.before": "a verb on a job is about to be written to the ledger",
    "verb.written": "a verb on a job is in the ledger, its answer is not sent yet",
    "delete.marked": "a job's deletion is marked in its folder, and nothing is gone yet",
    "bell.heard": "a pool process heard a bell",
    "supervisor.claimed": "a job was claimed",
    "supervisor.spec_written": "the job's spec.json is on disk",
    "supervisor.orders_written": "the claim's orders.json is on disk",
    "supervisor.started": "the job's process was started",
    "supervisor.before_renew": "the lease is about to be renewed",
    "supervisor.renewed": "the lease was renewed",
    "supervisor.before_emit": "events are about to be delivered",
    "supervisor.emitted": "events were delivered",
    "supervisor.before_publishing": "the process has ended well; from the next transition on its result stands",
    "supervisor.publishing": "the result stands; nothing of it is public yet",
    "supervisor.published": "the result is public; the ledger does not know it yet",
    "supervisor.before_finish": "the job's end is about to be written down",
    "supervisor.finished": "the job's end is written down",
    "supervisor.before_release": "the job is about to be given back",
    "supervisor.released": "the job was given back",
    "training.stepped": "a training step was done; nothing of it is saved yet",
    "checkpoint.tmp_written": "a checkpoint is written under its hidden name",
    "checkpoint.durable": "a checkpoint is on disk under its hidden name",
    "checkpoint.renamed": "a checkpoint has its name",
    "checkpoint.pruned": "older checkpoints were removed",
    "checkpoint.said": "the process told of its checkpoint",
    "catalog.staged": "a model version was copied under a hidden name",
    "catalog.renamed": "a model version has its number",
    "catalog.aliased": "an alias points to the model version",
    "dataset.renamed": "an imported dataset's data are in place, its descriptor is not",
    "job.result_said": "the job's process told its result",
    "reconciler.expired": "a dead or late worker's lease was taken away",
    "reconciler.rung": "a bell was rung for a job that was due",
    "archive.appended": "a job's events were appended to its file and are on disk",
    "archive.trimmed": "events that are on disk were dropped from a live job's stream",
    "archive.recorded": "an ended job's record is on disk",
    "archive.marked": "an ended job is known to be on disk",
    "webhook.taken": "a webhook's delivery was taken; nothing is sent yet",
    "webhook.sent": "a webhook was sent and answered, or failed; nothing is written down yet",
    "webhook.noted": "a webhook's attempt is written down",
}


class FaultInjected(RuntimeError):
    """The exception of the action `raise`."""


@dataclass(frozen=True)
class _Fault:
    point: str
    nth: int
    action: str
    seconds: float = 0.0

    @classmethod
    def read(cls, text: str) -> "_Fault":
        """Raises ValueError where the text is no fault or names no point."""
        point, nth, action, *seconds = text.strip().split(":")
        if point not in POINTS or action not in {"kill", "stop", "raise"} or (action == "stop") != bool(seconds):
            raise ValueError(f"RESNETD_FAULT: {text!r} is not point:n:action; points: {', '.join(sorted(POINTS))}")
        return cls(point, int(nth), action, float(seconds[0]) if seconds else 0.0)


_faults: list[_Fault] = []
_passed: Counter[str] = Counter()


def configure(text: str) -> None:
    """From now on these entries hold and no others, and no point was passed before. Raises ValueError."""
    _faults[:] = [_Fault.read(entry) for entry in text.split(",") if entry.strip()]
    _passed.clear()


configure(os.environ.get("RESNETD_FAULT", ""))


def passed(name: str) -> int:
    """How often this process passed the point since it was configured, 0 while no fault is."""
    return _passed[name]


def point(name: str) -> None:
    """This process passes the point `name` now. Costs one comparison where no fault is configured."""
    if _faults:
        _pass(name)


def _pass(name: str) -> None:
    _passed[name] += 1
    for fault in _faults:
        if fault.point == name and fault.nth == _passed[name] and _first(fault):
            _strike(fault)


def _first(fault: _Fault) -> bool:
    folder = os.environ.get("RESNETD_FAULT_ONCE")
    if folder is None:
        return True
    try:
        mark = Path(folder) / f"{fault.point}-{fault.nth}-{fault.action}"
        os.close(os.open(mark, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        return False
    return True


def _strike(fault: _Fault) -> None:
    if fault.action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif fault.action == "stop":
        waker = f"sleep {fault.seconds}; kill -CONT {os.getpid()}"
        subprocess.Popen(["/bin/sh", "-c", waker], start_new_session=True)
        os.kill(os.getpid(), signal.SIGSTOP)
    else:
        raise FaultInjected(f"injected at {fault.point}")
