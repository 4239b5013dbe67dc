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
POINTS: dict[str, str] = {}


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


def _configured() -> list[_Fault]:
    return [_Fault.read(text) for text in os.environ.get("RESNETD_FAULT", "").split(",") if text.strip()]


_faults = _configured()
_passed: Counter[str] = Counter()


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
