"""Files that are whole or absent, whatever is killed meanwhile: temporary name, fsync, rename, fsync the folder."""

import contextlib
import hashlib
import os
import shutil
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson


def fsync_dir(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_dir(folder: Path) -> None:
    """Make a folder, and what lacks above it. Durable on return: what is written there is found after a power cut."""
    if folder.is_dir():
        return
    make_dir(folder.parent)
    folder.mkdir(exist_ok=True)
    fsync_dir(folder.parent)


def write_atomic(path: Path, data: bytes) -> None:
    """Put `data` at `path`: readers see the old content or the new, never a part. Durable on return.

    It is the owner's alone: records hold addresses with tokens, and keys.json hashes.
    """
    tmp = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    fd = os.open(tmp, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        tmp.replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            tmp.unlink()
        raise
    fsync_dir(path.parent)


def write_json(path: Path, value: Any) -> None:  # noqa: ANN401 - anything that JSON can hold
    write_atomic(path, orjson.dumps(value, option=orjson.OPT_INDENT_2))


def read_json(path: Path) -> Any:  # noqa: ANN401 - anything that JSON can hold
    return orjson.loads(path.read_bytes())


def sha256_of(path: Path) -> str:
    """Of what the file holds, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fsync_tree(folder: Path) -> None:
    """Make every file and folder below `folder` durable."""
    for base, _, names in os.walk(folder):
        for name in names:
            fd = os.open(Path(base) / name, os.O_RDONLY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        fsync_dir(Path(base))


def publish_dir(source: Path, target: Path) -> None:
    """Rename a finished folder into place, durably. Raises OSError (ENOTEMPTY) where `target` holds something."""
    fsync_tree(source)
    make_dir(target.parent)
    source.rename(target)
    fsync_dir(target.parent)


def copy_tree(source: Path, target: Path) -> None:
    """Copy what a folder holds into a new one; what a failure leaves is the caller's.

    Raises OSError as it came: that of shutil.copytree has no errno, by which a full disk is known.
    """
    target.mkdir()
    for each in source.iterdir():
        if each.is_dir():
            copy_tree(each, target / each.name)
        else:
            shutil.copyfile(each, target / each.name)


def remove_tree(folder: Path) -> None:
    """Remove a folder, durably; a crash midway leaves a hidden name that nobody reads."""
    doomed = folder.with_name(f".{folder.name}.{uuid4().hex}.tmp")
    try:
        folder.rename(doomed)
    except (FileNotFoundError, NotADirectoryError):  # or somebody else has just removed it
        return
    fsync_dir(folder.parent)
    shutil.rmtree(doomed, ignore_errors=True)


def remove_temporary(folder: Path, *, of: str = "") -> None:
    """Remove what killed writers left in `folder` under the hidden names of this module; those for the name `of` only.

    Nobody may be writing such a file meanwhile.
    """
    for leftover in folder.glob(f".{of}*.tmp"):
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)
