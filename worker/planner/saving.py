"""What keeping a run's state costs: the time of a checkpoint, and the memory of the weights that are kept."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

import orjson

from models.checkpoint import pieces
from models.checkpoint_files import copy
from store.files import fsync_dir
from worker.trainer.state import RunState

if TYPE_CHECKING:
    from torch import Tensor

_MOST_BYTES = 128 * 2**20  # are written: of a larger checkpoint a part, and the rest is counted like it
_ESTIMATE = 1e8  # bytes a second, where nothing can be written


def kept_bytes(state: RunState) -> int:
    """Of the best epoch's weights, which lie in the machine's memory from the first validation on."""
    return sum(tensor.nbytes for tensor in state.judged.state_dict().values())


def saving_seconds(state: RunState, folder: Path) -> float:
    """Of a checkpoint of a run that has taken a step, by the work of one, in nameless files on the file system of
    `folder`: whatever ends this process, nothing of them stays.
    """
    kept = {f"kept/{name}": tensor for name, tensor in state.judged.state_dict().items()}
    checkpoint = state.checkpoint({})
    tensors = {**checkpoint.tensors, **kept}
    some = dict(_first(tensors))
    whole, written = (sum(tensor.nbytes for tensor in each.values()) for each in (tensors, some))
    began = time.perf_counter()
    state.is_finite()
    try:
        with TemporaryFile(dir=folder) as file, TemporaryFile(dir=folder) as told:
            copy(pieces(some), file)
            told.write(orjson.dumps(checkpoint.state))
            for each in (file, told):
                each.flush()
                os.fsync(each.fileno())
        for _ in range(3):  # the checkpoint's, the claim's and the run's
            fsync_dir(folder)
    except OSError:  # such as a disk that is full, of which the training will tell
        return whole / _ESTIMATE
    return (time.perf_counter() - began) * whole / written


def _first(tensors: dict[str, "Tensor"]) -> Iterator[tuple[str, "Tensor"]]:
    """As many as are to be written, one at least."""
    size = 0
    for name, tensor in tensors.items():
        if size >= _MOST_BYTES:
            return
        size += tensor.nbytes
        yield name, tensor
