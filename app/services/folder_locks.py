"""Locks (flock) on folders of datasets and of model versions: who uses one holds it shared, who deletes it alone."""

import asyncio
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.services.ledger import LONG_SECONDS

SHARED, ALONE = fcntl.LOCK_SH, fcntl.LOCK_EX
_PATIENCE_SECONDS = LONG_SECONDS + 2.0  # a deletion holds the lock for as long as it searches
_TICK_SECONDS = 0.02


class FolderBusy(Exception):
    """Others hold the lock for long."""


async def locked(folder: Path, how: int) -> int | None:
    """A lock as an open file; None where there is no such folder. Raises FolderBusy.

    No thread waits for it, which others need meanwhile. The folder may have been removed before the lock was had.
    """
    patience = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            return _lock(folder, how)
        except BlockingIOError:
            if time.monotonic() > patience:
                raise FolderBusy from None
        await asyncio.sleep(_TICK_SECONDS)


def _lock(folder: Path, how: int) -> int | None:
    """Raises BlockingIOError where another request has it."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, how | fcntl.LOCK_NB)
    except BaseException:
        os.close(fd)
        raise
    return fd


@contextmanager
def held(lock: int) -> Iterator[None]:
    """The lock is given back at the end of the context."""
    try:
        yield
    finally:
        os.close(lock)
