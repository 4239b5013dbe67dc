"""Who holds a lease: a process, named so that its death can be seen from the same machine."""

import os
import socket
from pathlib import Path


def _started(pid: int) -> str | None:
    """The process's start time in clock ticks since boot; None when there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return stat.rpartition(")")[2].split()[19]  # fields after the name, which may itself hold blanks


def _machine() -> str:
    """This machine since it booted: a pid from before means nothing."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    namespace = Path("/proc/self/ns/pid").readlink()
    return f"{socket.gethostname()}/{boot[:8]}/{str(namespace)[5:-1]}"


def this_process() -> str:
    pid = os.getpid()
    return f"{_machine()}:{pid}:{_started(pid)}"


def is_dead(owner: str) -> bool:
    """True when the owner ran on this machine and is gone. False when it lives, or cannot be seen from here."""
    machine, _, process = owner.partition(":")
    pid, _, started = process.partition(":")
    if machine != _machine() or not pid.isdigit():
        return False
    return _started(int(pid)) != started
