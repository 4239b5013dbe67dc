"""How many images a second a runtime computes here: alone with all cores, and with every core at work.

Rates of one machine drift by minutes and by neighbours, so candidates are measured in turns and the best turn counts.
"""

import logging
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from app.engine.runtimes.base import Candidate, Compute, Loaded
from models.manifest import Preprocessing

log = logging.getLogger(__name__)

_CPU_SIZES = (1, 4, 8, 16, 32)
_CUDA_SIZES = (1, 4, 16, 32, 64, 128, 256)
_ROUNDS = 3
_SECONDS = 0.1  # of each measurement, or two calls where those take longer
_LONGEST = 0.5  # seconds of one batch: larger ones would make everybody wait, so they are not measured
_LONGEST_ASKED = 5.0  # of one that a person asked for: it is measured all the same, but once where it is long
_HOPELESS = 0.5  # of the best rate: what is slower than this in the first round is not measured again


@dataclass
class Rates:
    """Images a second: of one image at a time (`alone`), and of batches by size under full load."""

    alone: float = 0.0
    loaded: dict[int, float] = field(default_factory=dict)
    failed: str | None = None  # why there are none

    @property
    def best(self) -> float:
        return max(self.loaded.values(), default=0.0)


def sizes(device: str, *, max_batch: int | None) -> tuple[int, ...]:
    """The batch sizes that are in use on a device of this type, where a person may have said which is the largest."""
    usual = _CUDA_SIZES if device == "cuda" else _CPU_SIZES
    return usual if max_batch is None else (*(size for size in usual if size < max_batch), max_batch)


def rates(
    ready: Mapping[Candidate, Loaded], to: Preprocessing, *, sizes: tuple[int, ...], max_batch: int | None
) -> dict[Candidate, Rates]:
    """The best of a few rounds of each candidate, in turns. `max_batch` is the size that a person asked for.

    One that fails, at a size that is too large for the device's memory or from the first, is not measured further.
    """
    found = {candidate: Rates() for candidate in ready}
    racing = dict(ready)
    for _ in range(_ROUNDS):
        for candidate, loaded in [*racing.items()]:
            try:
                _once(found[candidate], loaded, to, sizes, max_batch)
            except Exception as error:  # a library that fails costs its own candidate, as when it was loaded
                log.exception("a runtime failed while it was measured", extra={"candidate": str(candidate)})
                del racing[candidate]
                if not found[candidate].loaded:
                    found[candidate].failed = f"{type(error).__name__}: {str(error)[:200]}"
        leader = max((each.best for each in found.values()), default=0.0)
        racing = {candidate: ready[candidate] for candidate in racing if found[candidate].best >= _HOPELESS * leader}
    return found


def _once(found: Rates, loaded: Loaded, to: Preprocessing, sizes: tuple[int, ...], max_batch: int | None) -> None:
    noise = np.random.default_rng(0)
    images = noise.integers(0, 256, size=(max(sizes), to.height, to.width, to.channels), dtype=np.uint8)
    with ThreadPoolExecutor(1) as one:  # not this thread: how many cores torch takes is a property of the thread
        found.alone = max(found.alone, one.submit(_rate, loaded.wide, images[:1], _SECONDS).result())
    compute, streams = (loaded.narrow, loaded.streams) if loaded.narrow else (loaded.wide, 1)
    with ThreadPoolExecutor(streams) as pool:
        rate = found.loaded.get(sizes[0], found.alone)
        for size in sizes:
            longest = _LONGEST_ASKED if size == max_batch and size not in found.loaded else _LONGEST
            if size * streams / max(rate, 1e-9) > longest and size > sizes[0]:
                continue
            turns = [pool.submit(_rate, compute, images[:size], _SECONDS) for _ in range(streams)]
            rate = sum(turn.result() for turn in turns)
            found.loaded[size] = max(found.loaded.get(size, 0.0), rate)


def _rate(compute: Compute, images: npt.NDArray[np.uint8], seconds: float) -> float:
    """Images a second of this thread; the first call is not counted."""
    compute(images)
    calls, began = 0, time.perf_counter()
    while calls < 2 or time.perf_counter() - began < seconds:
        compute(images)
        calls += 1
    return calls * len(images) / (time.perf_counter() - began)
