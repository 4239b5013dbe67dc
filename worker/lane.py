"""A lane's slot: one job at a time on each device, held by the kernel, so that a death of whatever kind frees it.

The lock belongs to the open file and not to a process, as flock's does: the job's own process inherits the file, and
the slot is free only when the last process that used the device is gone. It is taken by fcntl (F_OFD_SETLK) and not by
flock, because only such a lock can be looked at without taking it for an instant (F_OFD_GETLK).
"""

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jobs.model import Lane
from store.layout import Layout
from worker.device_identity import host, identity

_FLOCK = struct.Struct("@hhqqi")  # struct flock of fcntl.h: type, whence, start, length, pid
_WHOLE_FILE = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)


def lock_path(layout: Layout, lane: Lane, device: str) -> Path:
    """The lane's lock file: one for each device of each machine that shares the data directory, however it is named."""
    return layout.locks / f"{lane}-{identity(device) if lane is Lane.DEVICE else host()}.lock"


@contextmanager
def slot(layout: Layout, lane: Lane, device: str) -> Iterator[int | None]:
    """Hold the lane's slot on this machine; yields the open lock file, or None, at once, when another has the slot."""
    layout.locks.mkdir(parents=True, exist_ok=True)
    fd = os.open(lock_path(layout, lane, device), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _WHOLE_FILE)
        except BlockingIOError:
            yield None
            return
        os.utime(fd)  # whoever looks sees that bells are answered, however short the work
        yield fd
    finally:
        os.close(fd)


def heard(layout: Layout, lane: Lane, device: str) -> None:
    """Tell whoever looks when the slot was last taken that the lane's queue is listened to."""
    layout.locks.mkdir(parents=True, exist_ok=True)
    lock_path(layout, lane, device).touch(mode=0o600)


def last_taken(lock: Path) -> int | None:
    """When the slot was last taken, ns on the file system's clock; None when it is held now. Disturbs nobody."""
    try:
        fd = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    try:
        found = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _WHOLE_FILE)
        return os.fstat(fd).st_mtime_ns if _FLOCK.unpack(found)[0] == fcntl.F_UNLCK else None
    finally:
        os.close(fd)
