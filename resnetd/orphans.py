"""What a part that was killed leaves behind: its children come to us, and are ended.

Linux only (`prctl(PR_SET_CHILD_SUBREAPER)`, /proc).
"""

import ctypes
import os
import signal
import time
from collections.abc import Set as AbstractSet
from contextlib import suppress
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
_LIBC = ctypes.CDLL(None, use_errno=True)
_TICK_SECONDS = 0.01
_ZOMBIE = "Z"  # ended, and not collected


def adopt() -> None:
    """From now on a descendant whose parent dies is our child. Where the kernel refuses, it is init's as before."""
    _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children() -> set[int]:
    """The pids of this process's children, those that have ended and were not collected included."""
    return set(_states())


def _states() -> dict[int, str]:
    """The same, each with its state: the letter that proc(5) gives it."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):  # it has just ended
                stat = (entry / "stat").read_bytes()  # «pid (name) state parent …», and the name may have parentheses
                state, parent = stat.rpartition(b")")[2].split()[:2]
                if int(parent) == os.getpid():
                    found[int(entry.name)] = state.decode()
    return found


def end(*, spared: AbstractSet[int], seconds: float) -> set[int]:
    """Kill and collect every child but the spared ones, and what these leave in turn, until there is none.

    The pids of those that were killed, without those that had ended by themselves. Gives up after `seconds`: a process
    that the kernel holds cannot be killed.
    """
    until = time.monotonic() + seconds
    killed: set[int] = set()
    while left := {pid: state for pid, state in _states().items() if pid not in spared}:
        for pid, state in left.items():  # a child's number is nobody else's until it is collected
            with suppress(ProcessLookupError, ChildProcessError):  # it was, by somebody else
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, os.WNOHANG)
            if state != _ZOMBIE:
                killed.add(pid)
        if time.monotonic() > until:
            break
        time.sleep(_TICK_SECONDS)
    return killed
