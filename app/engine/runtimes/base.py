"""What a runtime is: a way to compute a network on this machine, and the words that all of them share."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from models.runtime import Outputs
from store.settings import Precision, RuntimeName

Compute = Callable[[npt.NDArray[np.uint8]], Outputs]


class Numbers(StrEnum):
    """What a runtime multiplies, the most exact first."""

    FP32 = "fp32"
    BF16 = "bf16"
    INT8 = "int8"


_ALLOWED = {
    Precision.EXACT: frozenset({Numbers.FP32}),
    Precision.BF16: frozenset({Numbers.FP32, Numbers.BF16}),
    Precision.FASTEST: frozenset(Numbers),
}


class Unavailable(Exception):
    """This machine, or this model, cannot have the runtime; the message says why."""


@dataclass(frozen=True, order=True)
class Candidate:
    """A runtime with the numbers it uses."""

    runtime: RuntimeName
    numbers: Numbers

    def __str__(self) -> str:
        return f"{self.runtime}-{self.numbers}"


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A candidate, ready to compute outputs of images uint8 (N, H, W, C).

    `wide` takes all cores, called by one thread. `narrow` takes one core and may be called by `streams` threads at
    once; None where the device is not divided: a GPU, or a CPU with a single core. Calls of `narrow` take `copies` of
    the network in turn, each with slow first passes of its own.
    """

    wide: Compute
    narrow: Compute | None = None
    streams: int = 1
    copies: int = 1


REFERENCE = Candidate(RuntimeName.EAGER, Numbers.FP32)
_CPU = (
    REFERENCE,
    Candidate(RuntimeName.FOLDED, Numbers.FP32),
    Candidate(RuntimeName.FOLDED, Numbers.BF16),
    Candidate(RuntimeName.OPENVINO, Numbers.FP32),
    Candidate(RuntimeName.OPENVINO, Numbers.BF16),
    Candidate(RuntimeName.OPENVINO, Numbers.INT8),
    Candidate(RuntimeName.COMPILED, Numbers.BF16),  # last: it takes a minute to build
)
_CUDA = (
    REFERENCE,
    Candidate(RuntimeName.FOLDED, Numbers.BF16),
    Candidate(RuntimeName.CUDA_GRAPHS, Numbers.BF16),
    Candidate(RuntimeName.COMPILED, Numbers.BF16),
)


def candidates(device: str, *, precision: Precision, runtime: RuntimeName) -> tuple[Candidate, ...]:
    """What may serve on a device of this type, the reference first: it is what all fall back to."""
    every = _CUDA if device == "cuda" else _CPU
    return tuple(each for each in every if allowed(each, precision=precision, runtime=runtime))


def allowed(each: Candidate, *, precision: Precision, runtime: RuntimeName) -> bool:
    """Whether these settings let it serve; the reference always may."""
    fits = each.numbers in _ALLOWED[precision] and runtime in (RuntimeName.AUTO, each.runtime)
    return fits or each == REFERENCE
