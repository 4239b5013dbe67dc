"""`python -m worker.adopter.unpickling FILE`: a disposable process that reads a PyTorch file that nobody vouches for.

torch reads it with `weights_only`, which is a filter and no wall; so this process has little memory, may write no file
and start no program where the kernel can hold it to that (`sandbox.py`), has nothing of ours in its environment, and
ends here. Standard output: the tensors as safetensors, or where it ends with 78 why it refused.
"""

import io
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from store.process import attach_to_parent
from worker.adopter import sandbox
from worker.job_process import REFUSED

_NESTED = ("state_dict", "model_state_dict", "model", "net", "network", "module", "weights", "params")
_DEEPEST = 4


class NoStateDict(ValueError):
    """The file holds something else, or something besides."""


def state_of(found: object, *, depth: int = 0) -> dict[str, Tensor]:
    """The state dict in what a file held: the mapping itself, or below the usual names. Raises NoStateDict."""
    if not isinstance(found, Mapping) or depth > _DEEPEST:
        raise NoStateDict(f"it holds {type(found).__name__}, no state dict")
    for name in _NESTED:
        if isinstance(found.get(name), Mapping):
            return state_of(found[name], depth=depth + 1)
    tensors = {str(name): value for name, value in found.items() if isinstance(value, Tensor)}
    if not tensors:
        inner = [value for value in found.values() if isinstance(value, Mapping)]
        if len(inner) == 1:
            return state_of(inner[0], depth=depth + 1)
        raise NoStateDict("it holds no tensors")
    return tensors


def _plain(tensors: Mapping[str, Tensor], most_bytes: int) -> Iterator[tuple[str, Tensor]]:
    """Each tensor with memory of its own: in a file they may be views that are larger than what they look at."""
    total = 0
    for name, tensor in tensors.items():
        if tensor.layout is not torch.strided or tensor.is_quantized:
            raise NoStateDict(f"{name!r} is not a dense tensor")
        total += tensor.numel() * tensor.element_size()
        if total > most_bytes:
            raise NoStateDict("its tensors are larger than the file")
        yield name, tensor.detach().clone(memory_format=torch.contiguous_format)


def read(file: io.BufferedReader, size: int) -> bytes:
    """Raises NoStateDict."""
    try:
        found: Any = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a stranger's file makes torch raise
        raise NoStateDict(_why(str(error))) from error
    return save(dict(_plain(state_of(found), 2 * size)))


def _why(said: str) -> str:
    """What torch refused, without its advice to trust the file."""
    named = re.search(r"GLOBAL (\S+)", said)
    if named is not None:
        return f"it holds more than tensors: it names {named[1][:100]}"
    if "weights_only" in said or "Weights only" in said:
        return "it holds more than tensors"
    return f"torch cannot read it: {' '.join(said.split())[:200]}"


def main(path: Path) -> int:
    attach_to_parent()
    size = path.stat().st_size
    with path.open("rb") as file, os.fdopen(os.dup(1), "wb") as out:  # opened before nothing can be any more
        os.dup2(2, 1)
        sandbox.enter(memory_bytes=2 * 2**30 + 6 * size, written_bytes=3 * size + 2**20)
        try:
            content = read(file, size)
        except NoStateDict as error:
            out.write(str(error).encode())
            return REFUSED
        out.write(content)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
