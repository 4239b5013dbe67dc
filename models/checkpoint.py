"""Checkpoints of a training run: everything that is needed to go on, as tensors. `checkpoint_files` keeps the files.

The tensors are written one by one, in the bytes that safetensors' own `save` gives: that holds all of them twice, as
contiguous copies and as the file.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import torch
from safetensors.torch import load as load_tensors
from torch import Tensor

from models import checkpoint_files
from models.checkpoint_files import StoredCheckpoint

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

#: The format's name of each type, in the order in which safetensors writes them.
_TYPES = {
    torch.int64: "I64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@dataclass(frozen=True)
class Checkpoint:
    """`state` is JSON; `tensors` lie on the CPU."""

    step: int
    state: dict[str, Any]
    tensors: dict[str, Tensor]


def save(claim_dir: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint durably and drop older ones, of earlier claims too, but for the last two.

    The memory that it takes is a copy of one tensor.
    """
    return checkpoint_files.write(claim_dir, checkpoint.step, checkpoint.state, lambda: pieces(checkpoint.tensors))


def pieces(tensors: dict[str, Tensor]) -> Iterator["ReadableBuffer"]:
    """A safetensors file of these tensors: its header, then each tensor's bytes."""
    order = list(_TYPES)
    names = sorted(tensors, key=lambda name: (order.index(tensors[name].dtype), name))
    header, end = {}, 0
    for name in names:
        tensor, start = tensors[name], end
        end += tensor.nbytes
        header[name] = {"dtype": _TYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    head = orjson.dumps(header)
    head += b" " * (-len(head) % 8)  # numbers lie at multiples of their size
    yield len(head).to_bytes(8, "little") + head
    for name in names:
        yield tensors[name].detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data


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
