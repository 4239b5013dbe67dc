"""Checkpoints as files: whole or absent, checked before use. Without torch; `models/checkpoint.py` adds the tensors.

A checkpoint is `claim-<n>/step-<k>/` with tensors.safetensors and state.json, which holds the tensors' sha256. It is
written under a hidden name, made durable, then renamed into place. Where a run is given new settings at the very step
that was saved, state.json is replaced, whole; where its tensors have changed since, as by the end of an epoch, the
folder is.
"""

import errno
import hashlib
import re
import shutil
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from uuid import uuid4

import orjson

from store.faults import point
from store.files import fsync_dir, fsync_tree, remove_temporary, remove_tree, sha256_of, write_atomic

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

KEEP = 2
_TENSORS, _STATE = "tensors.safetensors", "state.json"
_UNREADABLE = (OSError, KeyError, TypeError, AttributeError, orjson.JSONDecodeError)
_PLACE = re.compile(r"claim-(\d+)/step-(\d+)")


@dataclass(frozen=True)
class StoredCheckpoint:
    """`state` is JSON; `tensors` is a whole safetensors file."""

    step: int
    state: dict[str, Any]
    tensors: bytes


class CheckpointDamagedError(ValueError):
    """A checkpoint that does not match its checksum or cannot be read."""


def save(claim_dir: Path, checkpoint: StoredCheckpoint) -> Path:
    """`write` a checkpoint whose tensors are one piece."""
    return write(claim_dir, checkpoint.step, checkpoint.state, lambda: (checkpoint.tensors,))


def write(claim_dir: Path, step: int, state: dict[str, Any], pieces: Callable[[], Iterable["ReadableBuffer"]]) -> Path:
    """Write a checkpoint durably and drop older ones, of earlier claims too, but for the last two.

    `pieces()` are the tensors' file from its beginning to its end, the same each time. Checkpoints of later claims are
    left alone: this process may be one that lost its job and does not know it yet.
    """
    target = claim_dir / f"step-{step}"

    def envelope(tensors: str) -> bytes:
        body = orjson.dumps({"step": step, "sha256": tensors, "state": state})
        return orjson.dumps({"sha256": _sha256(body), "body": body.decode()})

    if target.exists():  # saved twice between two steps
        digest = hashlib.sha256()
        for piece in pieces():
            digest.update(piece)
        if _holds(target, digest.hexdigest()):
            write_atomic(target / _STATE, envelope(digest.hexdigest()))
            return target

    def fill(folder: Path) -> None:
        with (folder / _TENSORS).open("wb") as file:
            tensors = copy(pieces(), file)
        (folder / _STATE).write_bytes(envelope(tensors))

    _place(target, fill)
    others = [each for each in found(claim_dir.parent) if each[2] != target and each[1] <= _number(claim_dir)]
    for _, _, old in others[KEEP - 1 :]:
        remove_tree(old)
    point("checkpoint.pruned")
    return target


def copy(pieces: Iterable["ReadableBuffer"], file: BinaryIO) -> str:
    """Write the pieces to a file; their SHA-256."""
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
        file.write(piece)
    return digest.hexdigest()


def inherit(from_run: Path, run_dir: Path) -> Path | None:
    """Give a run the newest whole checkpoint of another one, as its claim 0: by hard links, both runs keep it.

    Returns None where there is nothing to inherit, or the run has a checkpoint already.
    """
    if found(run_dir):
        return None
    for step, _, folder in found(from_run):
        try:
            load(folder)
        except CheckpointDamagedError as error:
            _pass_over(error)
            continue
        target = run_dir / "claim-0" / f"step-{step}"
        source = folder

        def fill(place: Path, source: Path = source) -> None:
            for name in (_TENSORS, _STATE):
                _link(source / name, place / name)

        _place(target, fill)
        return target
    return None


def _place(target: Path, fill: Callable[[Path], None]) -> None:
    """Have `fill` write a folder under a hidden name and move it to `target`, durably.

    What lies there already goes; a kill between its going and the other's coming leaves the checkpoint before it.
    """
    unfinished, replaced = (target.with_name(f".{target.name}.{uuid4().hex}.tmp") for _ in range(2))
    unfinished.mkdir(parents=True)
    try:
        fill(unfinished)
        point("checkpoint.tmp_written")
        fsync_tree(unfinished)
        point("checkpoint.durable")
        if target.exists():
            target.rename(replaced)
        unfinished.rename(target)
        point("checkpoint.renamed")
        fsync_dir(target.parent)
        fsync_dir(target.parent.parent)  # the claim's folder may be as new as the checkpoint
        remove_tree(replaced)
    except BaseException:
        remove_tree(unfinished)
        raise


def _link(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EXDEV, errno.ENOTSUP, errno.EMLINK):
            raise
        shutil.copyfile(source, target)  # a file system without hard links


def forget(run_dir: Path) -> None:
    """Remove every checkpoint of a run: none of them can be resumed."""
    for _, _, folder in found(run_dir):
        remove_tree(folder)


def sweep(claim_dir: Path) -> None:
    """Remove what earlier claims, which are over, left half written."""
    for other in claim_dir.parent.glob("claim-*"):
        if _number(other) <= _number(claim_dir):
            remove_temporary(other)


def _number(claim_dir: Path) -> int:
    number = claim_dir.name.removeprefix("claim-")
    return int(number) if number.isdigit() else 0


def load(folder: Path) -> StoredCheckpoint:
    """Raises CheckpointDamagedError where anything differs from what was written."""
    try:
        content = _content(folder)
        tensors = (folder / _TENSORS).read_bytes()
        if _sha256(tensors) != content["sha256"]:
            raise CheckpointDamagedError(f"{folder / _TENSORS} does not match its checksum")
        return StoredCheckpoint(content["step"], content["state"], tensors)
    except _UNREADABLE as error:
        raise CheckpointDamagedError(f"{folder} cannot be read: {error!r}") from error


def _content(folder: Path) -> dict[str, Any]:
    """What state.json says. Raises CheckpointDamagedError where it is not what was written, and what JSON raises."""
    envelope = orjson.loads((folder / _STATE).read_bytes())
    body = envelope["body"].encode()
    if _sha256(body) != envelope["sha256"]:
        raise CheckpointDamagedError(f"{folder / _STATE} does not match its checksum")
    content: dict[str, Any] = orjson.loads(body)
    return content


def _holds(folder: Path, tensors: str) -> bool:
    """Whether the checkpoint there is whole and has the tensors of this SHA-256."""
    try:
        return bool(_content(folder)["sha256"] == tensors == sha256_of(folder / _TENSORS))
    except (CheckpointDamagedError, *_UNREADABLE):
        return False


def found(run_dir: Path) -> list[tuple[int, int, Path]]:
    """(step, claim, folder) of every checkpoint of a run: the latest claim's first, and of one claim the furthest.

    An earlier claim's may be further: its process may have gone on when it had lost the job, and counts no more.
    """
    places = []
    for folder in run_dir.glob("claim-*/step-*"):
        match = _PLACE.fullmatch(folder.relative_to(run_dir).as_posix())
        if match:
            places.append((int(match[2]), int(match[1]), folder))
    return sorted(places, key=lambda place: (place[1], place[0]), reverse=True)


def newest(run_dir: Path) -> StoredCheckpoint | None:
    """The checkpoint to go on from; a damaged one is passed over with a word on standard error."""
    for _, _, folder in found(run_dir):
        try:
            return load(folder)
        except CheckpointDamagedError as error:
            _pass_over(error)
    return None


def _pass_over(error: CheckpointDamagedError) -> None:
    print(f"passed over a checkpoint: {error}", file=sys.stderr)  # noqa: T201 - standard error is for people


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
