"""Checkpoints of a training run: everything that is needed to go on, whole or absent, checked before use.

A checkpoint is `claim-<n>/step-<k>/` with tensors.safetensors and state.json, which holds the tensors' sha256. It is
written under a hidden name, made durable, then renamed into place.
"""

import hashlib
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from store.files import publish_dir, remove_tree

KEEP = 2
_TENSORS, _STATE = "tensors.safetensors", "state.json"
_PLACE = re.compile(r"claim-(\d+)/step-(\d+)")


@dataclass(frozen=True)
class Checkpoint:
    """`state` is JSON; `tensors` lie on the CPU."""

    step: int
    state: dict[str, Any]
    tensors: dict[str, Tensor]


class CheckpointDamagedError(ValueError):
    """A checkpoint that does not match its checksum or cannot be read."""


def save(claim_dir: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint durably and drop older ones, of earlier claims too, but for the last two."""
    target = claim_dir / f"step-{checkpoint.step}"
    if target.exists():  # after a resume from it; the bytes would be the same
        return target
    tensors = save_tensors({name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()})
    state = orjson.dumps({"step": checkpoint.step, "sha256": _sha256(tensors), "state": checkpoint.state})
    unfinished = claim_dir / f".step-{checkpoint.step}.{uuid4().hex}.tmp"
    unfinished.mkdir(parents=True)
    try:
        (unfinished / _TENSORS).write_bytes(tensors)
        (unfinished / _STATE).write_bytes(orjson.dumps({"sha256": _sha256(state), "body": state.decode()}))
        publish_dir(unfinished, target)
    except OSError:
        remove_tree(unfinished)
        raise
    others = [folder for _, _, folder in found(claim_dir.parent) if folder != target]
    for old in others[KEEP - 1 :]:
        remove_tree(old)
    return target


def forget(run_dir: Path) -> None:
    """Remove every checkpoint of a run: none of them can be resumed."""
    for _, _, folder in found(run_dir):
        remove_tree(folder)


def sweep(run_dir: Path) -> None:
    """Remove what killed claims left half written. Only the claim that holds the job may call it."""
    for leftover in run_dir.glob("claim-*/.*.tmp"):
        remove_tree(leftover)


def load(folder: Path) -> Checkpoint:
    """Raises CheckpointDamagedError where anything differs from what was written."""
    try:
        envelope = orjson.loads((folder / _STATE).read_bytes())
        body = envelope["body"].encode()
        if _sha256(body) != envelope["sha256"]:
            raise CheckpointDamagedError(f"{folder / _STATE} does not match its checksum")
        content = orjson.loads(body)
        tensors = (folder / _TENSORS).read_bytes()
        if _sha256(tensors) != content["sha256"]:
            raise CheckpointDamagedError(f"{folder / _TENSORS} does not match its checksum")
        return Checkpoint(content["step"], content["state"], load_tensors(tensors))
    except (OSError, KeyError, TypeError, AttributeError, orjson.JSONDecodeError) as error:
        raise CheckpointDamagedError(f"{folder} cannot be read: {error!r}") from error


def found(run_dir: Path) -> list[tuple[int, int, Path]]:
    """(step, claim, folder) of every checkpoint of a run, the furthest first."""
    places = []
    for folder in run_dir.glob("claim-*/step-*"):
        match = _PLACE.fullmatch(folder.relative_to(run_dir).as_posix())
        if match:
            places.append((int(match[2]), int(match[1]), folder))
    return sorted(places, reverse=True)


def newest(run_dir: Path) -> Checkpoint | None:
    """The furthest whole checkpoint of any claim; a damaged one is passed over with a word on standard error."""
    for _, _, folder in found(run_dir):
        try:
            return load(folder)
        except CheckpointDamagedError as error:
            print(f"passed over a checkpoint: {error}", file=sys.stderr)  # noqa: T201 - standard error is for people
    return None


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
