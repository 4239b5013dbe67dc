"""Which of the measured runtimes serves, and in which batches."""

import math
from collections.abc import Iterable, Mapping

from app.engine.runtimes.base import REFERENCE, Numbers, allowed
from app.engine.runtimes.records import Measured
from store.settings import Precision, RuntimeName

_NOISE = 0.05  # rates nearer than this are called equal
_MOST_EXACT_FIRST = tuple(Numbers)
_FULL_SPEED = 0.95  # of the best rate: the smallest batch that reaches it is the largest that is made
_AROUND_BATCH = 0.002  # seconds that a stream spends between two batches of a busy engine, whatever their size
_WORTH_WAITING = 1.25  # what batches must gain over single images before one may wait for others
_MOST_DELAY_MS = 5.0


def choose(measured: Iterable[Measured], *, precision: Precision, runtime: RuntimeName) -> Measured | None:
    """The fastest that may serve; among equally fast ones the most exact. None where nothing was measured.

    Speed is the geometric mean of two rates: of single images alone, and of the best batches under load.
    """
    may = [each for each in measured if allowed(each.candidate, precision=precision, runtime=runtime)]
    fit = [each for each in may if each.refused is None]
    if runtime not in (RuntimeName.AUTO, REFERENCE.runtime):  # asked for by name: the reference only where it fails
        fit = [each for each in fit if each.candidate != REFERENCE] or fit
    if not fit:
        return None
    best = max(map(speed, fit))
    near = [each for each in fit if speed(each) >= best * (1 - _NOISE)]
    return min(near, key=lambda each: (_MOST_EXACT_FIRST.index(each.candidate.numbers), -speed(each)))


def speed(each: Measured) -> float:
    return math.sqrt(each.alone * max(each.loaded.values(), default=0.0))


def wide_pays(each: Measured, *, streams: int) -> bool:
    """Whether a lone image is answered sooner by all cores than by one: in a small network they wait for each other."""
    return not each.loaded or each.alone >= each.loaded[min(each.loaded)] / streams


def batching(loaded: Mapping[int, float], *, streams: int) -> tuple[int, float]:
    """`max_batch` in images and `max_delay` in ms, from rates by batch size with `streams` batches at a time.

    A batch larger than full speed needs makes its images wait for each other and gains nothing. To full speed belongs
    what happens around a batch while rates were measured without it: ResNet-18 on two cores computed single images at
    95 % of its best rate, and served them at 75 %. Waiting for more images pays only where a larger batch is worth it,
    and no longer than one image alone takes.
    """
    served = {size: 1 / (1 / rate + _AROUND_BATCH / (streams * size)) for size, rate in loaded.items()}
    most = min(size for size, rate in served.items() if rate >= _FULL_SPEED * max(served.values()))
    single = loaded[min(loaded)]
    if streams < 2 or loaded[most] < _WORTH_WAITING * single:
        return most, 0.0
    return most, round(min(_MOST_DELAY_MS, 1000 * streams / single), 2)
