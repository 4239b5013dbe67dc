"""The folder in which one server's HTTP processes count together, in files that they map into memory.

It lies in shared memory where there is any: on a full disk, whoever writes to a page that has no block yet is killed
(SIGBUS). Its maker holds a lock (flock) on it to its end, by which others know what a killed one left.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from resnetd.errors import CannotStart
from store.layout import Layout

_MEMORY = Path("/dev/shm")  # noqa: S108 - each folder in it has a random name and is its owner's alone
_PREFIX = "resnetd-metrics-"
_PREFIX_ON_DISK = "metrics-"
_ROOM = 16 * 1024 * 1024  # bytes; with less left, memory is the place that is full


@contextmanager
def counting(layout: Layout) -> Iterator[dict[str, str]]:
    """The variable that names the folder, which is there while the block lasts, HTTP processes that die included.

    Raises CannotStart where neither memory nor disk takes it.
    """
    for place, prefix in ((_MEMORY, _PREFIX), (layout.run, _PREFIX_ON_DISK)):
        sweep(place, prefix)
    try:
        folder, lock = _make(layout)
    except OSError as error:
        places = f"Neither {_MEMORY} nor {layout.run} takes the files that requests are counted in"
        raise CannotStart(f"{places}: {error.strerror}. Make room in one of them.") from error
    try:
        yield {"PROMETHEUS_MULTIPROC_DIR": str(folder)}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def sweep(place: Path, prefix: str) -> None:
    """Remove the folders of this user whose makers are dead."""
    for folder in place.glob(f"{prefix}*"):
        with suppress(OSError):  # another one has just swept it, or it is somebody else's
            lock = _open(folder)
            try:
                if os.fstat(lock).st_uid == os.getuid() and _taken(lock):
                    shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


def _make(layout: Layout) -> tuple[Path, int]:
    """A new folder and the descriptor that holds its lock. Raises OSError where neither memory nor disk takes it."""
    with suppress(OSError):
        if shutil.disk_usage(_MEMORY).free >= _ROOM:
            return _locked(_MEMORY, _PREFIX)
    return _locked(layout.run, _PREFIX_ON_DISK)


def _locked(place: Path, prefix: str) -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=place))
        with suppress(FileNotFoundError):  # another one swept it before it was locked: there and gone
            lock = _open(folder)
            if _taken(lock) and folder.exists():
                return folder, lock
            os.close(lock)


def _taken(lock: int) -> bool:
    """Whether the lock is ours now."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _open(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
