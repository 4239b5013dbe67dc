"""A lane's slot: one job at a time on each device, held by the kernel, so that a death of whatever kind frees it."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from jobs.model import Lane
from store.layout import Layout


@contextmanager
def slot(layout: Layout, lane: Lane, device: str) -> Iterator[bool]:
    """Hold the lane's slot on this machine; yields False, at once, when another process holds it."""
    layout.locks.mkdir(parents=True, exist_ok=True)
    name = f"{lane}-{device.replace(':', '-')}" if lane is Lane.DEVICE else str(lane)
    fd = os.open(layout.locks / f"{name}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        os.close(fd)
