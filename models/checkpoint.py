"""Checkpoints of a training run: everything that is needed to go on, as tensors. `checkpoint_files` keeps the files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from models import checkpoint_files
from models.checkpoint_files import StoredCheckpoint


@dataclass(frozen=True)
class Checkpoint:
    """`state` is JSON; `tensors` lie on the CPU."""

    step: int
    state: dict[str, Any]
    tensors: dict[str, Tensor]


def save(claim_dir: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint durably and drop older ones, of earlier claims too, but for the last two."""
    tensors = save_tensors({name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()})
    return checkpoint_files.save(claim_dir, StoredCheckpoint(checkpoint.step, checkpoint.state, tensors))


def load(folder: Path) -> Checkpoint:
    """Raises CheckpointDamagedError where anything differs from what was written."""
    return _read(checkpoint_files.load(folder))


def newest(run_dir: Path) -> Checkpoint | None:
    """The furthest whole checkpoint of the latest claim that has one; a damaged one is passed over with a word on
    standard error.
    """
    stored = checkpoint_files.newest(run_dir)
    return None if stored is None else _read(stored)


def _read(stored: StoredCheckpoint) -> Checkpoint:
    return Checkpoint(stored.step, stored.state, load_tensors(stored.tensors))
