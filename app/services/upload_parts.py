"""`<data>/uploads/*.part`: files on their way. Who writes one holds a lock on it; what nobody holds is swept away."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.services.dataset_views import REQUEST
from store.files import remove_temporary, remove_tree
from store.layout import Layout


def open_part(path: Path) -> int:
    """A new file, open and locked. Where a sweep came between the two and took it for dead, it is made again."""
    while True:
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX)
        if os.fstat(fd).st_nlink:
            return fd
        os.close(fd)


def sweep(layout: Layout) -> list[str]:
    """Remove what the dead left: parts that nobody holds, their folders that never got their upload, and folders that
    were being removed. The names of the parts.
    """
    swept = []
    for part in layout.uploads.glob("*.part"):
        with _nobodys(part) as dead:
            if not dead:
                continue
            its_id = part.name.partition(".")[0]
            folder = layout.job(its_id) if its_id.startswith("job_") else layout.dataset(its_id)
            if _abandoned(folder, part):
                remove_tree(folder)
            part.unlink(missing_ok=True)
            swept.append(part.name)
    for place in (layout.datasets, layout.jobs):
        remove_temporary(place)  # there, `remove_tree` alone makes such names
    return swept


def _abandoned(folder: Path, part: Path) -> bool:
    """Whether a folder never got its upload, and nobody is about to put it there.

    Looked at twice: who holds no other part of it any more may have just put its upload there.
    """
    return _unsettled(folder) and not _has_others(part) and _unsettled(folder)


def _unsettled(folder: Path) -> bool:
    """Whether a folder holds no more than what `Upload.settle` writes before the upload itself."""
    try:
        return all(each.name == REQUEST or each.name.startswith(".") for each in folder.iterdir())
    except FileNotFoundError:
        return False


def _has_others(part: Path) -> bool:
    """Whether somebody else writes a part of the same id."""
    for other in part.parent.glob(f"{part.name.partition('.')[0]}.*.part"):
        if other == part:
            continue
        with _nobodys(other) as dead:
            if not dead and other.exists():
                return True
    return False


@contextmanager
def _nobodys(part: Path) -> Iterator[bool]:
    """Whether the part is there and nobody holds it; within the context nobody else does."""
    try:
        fd = os.open(part, os.O_RDONLY)
    except FileNotFoundError:
        yield False
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
    else:
        yield True
    finally:
        os.close(fd)
