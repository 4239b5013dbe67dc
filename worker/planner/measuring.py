"""Speed and memory of a training, from a few of its real steps in a few seconds."""

import gc
import math
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Self

import torch

from models.recipes import Recipe
from worker.evaluator.reader import batch_size as evaluation_batch
from worker.job_process import Stop, out_of_memory
from worker.planner.contention import UNDISTURBED, Turns
from worker.planner.memory import Peak, PeakMeter, Room, data_bytes, described, largest, room
from worker.planner.rehearsal import Rehearsal
from worker.planner.sample import Sample
from worker.trainer.split_sizes import Sizes
from worker.trainer.state import RunState

SECONDS = 10.0
_FIRST_FLOPS = 1e11  # of a first step on a CPU: about a second where it is slow
_SHARE = 0.25  # of the time that is left, for one step
_STRIDE = 8  # times as many images
_MOST_STEPS = 50
_APART = 16  # images at once of the second peak, at least: below, other things than images move it


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was seen: `steps` of `batch_size` images in `seconds`, after `warmup_steps` of the same size.

    `peaks`: the most memory at two numbers of images at once, without the data; of none where fewer images than in the
    other took no less, and null where even they did. `evaluation`: likewise at rest, and of a validation's batch or as
    much of one as there was time for.
    `fits`, `too_many`: the most images at once that a CUDA device took, and the fewest that it did not, where tried.
    `finite`: whether the loss stayed a number; None where the steps were those of another plan, which may have had
    another learning rate. `load_images_per_second`: of reading, decoding and resizing.
    All rates are those of one device.
    `streamed`: whether the run would stream its images, as these steps did. `at`: when, RFC 3339. `room`: before.
    `core_share`: of the time for which the steps' threads wanted cores, the part in which they had them.
    `save_seconds`: of a checkpoint; `start_seconds`: of a process before its work, and once more in its first step.
    `kept_bytes`: of the best epoch's weights, in the machine's memory.
    """

    at: str
    device: dict[str, Any]
    room: Room
    batch_size: int
    warmup_steps: int
    steps: int
    seconds: float
    images_per_second: float
    evaluate_images_per_second: float
    load_images_per_second: float
    streamed: bool
    peaks: tuple[Peak, Peak] | None
    evaluation: tuple[Peak, Peak]
    fits: int | None
    too_many: int | None
    finite: bool | None
    core_share: float | None = None
    save_seconds: float = 0.0
    start_seconds: float = 0.0
    kept_bytes: int = 0

    @property
    def disturbed(self) -> bool:
        """Whether other work had so much of the cores that the rates are its as well."""
        return self.core_share is not None and self.core_share < UNDISTURBED

    @classmethod
    def of(cls, values: dict[str, Any]) -> Self:
        """From what `as_json` gave."""
        pairs = {
            name: values[name] and tuple(Peak(**each) for each in values[name]) for name in ("peaks", "evaluation")
        }
        return cls(**{**values, **pairs, "room": Room(**values["room"])})

    def as_json(self) -> dict[str, Any]:
        """For another plan of the same work."""
        return {**asdict(self), "finite": None}


class Measurement:
    """One measurement of `state`'s training on `sample`.

    `sizes` are the run's. Of several GPUs one is measured, with its share of a batch; several processes on a CPU have
    its cores and its memory in common.
    """

    def __init__(
        self,
        recipe: Recipe,
        sample: Sample,
        state: RunState,
        device: torch.device,
        *,
        classes: int,
        sizes: Sizes,
        stop: Stop,
    ) -> None:
        self._recipe, self._sample, self._state, self._device = recipe, sample, state, device
        self._classes, self._stop, self._steps_per_epoch = classes, stop, sizes.steps_per_epoch
        self._sharing = sharing(recipe, device.type)
        self._batch_size = math.ceil(sizes.batch / self._sharing)
        self._at_once = math.ceil(self._batch_size / recipe.parts(sizes.batch))
        self._meter, self._room = PeakMeter(device), room(device)
        held = 0 if sample.streamed else data_bytes(recipe, sizes, device_type=device.type, free=self._room.free)
        self._to_come = max(held - sample.bytes_held, 0)
        self._meter.reset()
        own = sample.bytes_held if device.type == "cpu" else 0  # a GPU has no images yet
        self._at_rest = Peak(images=0, bytes=max(self._meter.read() - own, 0))
        self._peaks: dict[int, int] = {}
        self._too_many: int | None = None
        self.once_seconds = 0.0

    def run(self, *, flops_per_image: int, most: int) -> Measured:
        """`most`: no larger batch is tried on a CUDA device. Raises JobStopped, and whatever torch raises where there
        is too little memory for the smallest step.
        """
        until, most = time.monotonic() + SECONDS, math.ceil(most / self._sharing)
        loop, batch_size, took = self._grown(self._first(flops_per_image), until)
        warm_up = 1
        while warm_up < 3 and took * 10 < until - time.monotonic():
            took, warm_up = loop.step(), warm_up + 1
        enough = (until + time.monotonic()) / 2
        began, steps, before = time.perf_counter(), 0, Turns.now()
        while steps == 0 or (steps < _MOST_STEPS and time.monotonic() + took < enough):
            loop.step()
            steps += 1
        total, turns = time.perf_counter() - began, Turns.now()

        if max(self._peaks) < _APART <= most and took / batch_size * _APART < until - time.monotonic():
            self._watched(self._loop(_APART), _APART)
        evaluation, forward = self._evaluated(loop, batch_size, until)
        del loop
        peaks = self._two_peaks()
        return Measured(
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            device=described(self._device),
            room=self._room,
            batch_size=batch_size,
            warmup_steps=warm_up,
            steps=steps,
            seconds=round(total, 3),
            images_per_second=rounded(self._sustained(steps * batch_size / total)),
            evaluate_images_per_second=rounded(evaluation[1].images / forward),
            load_images_per_second=rounded(self._sample.images_per_second),
            streamed=self._sample.streamed,
            peaks=peaks,
            evaluation=evaluation,
            fits=self._most_that_fit(most, until) if self._device.type == "cuda" else None,
            too_many=self._too_many,
            finite=bool(torch.isfinite(self._state.sums).all()),
            core_share=turns.share_since(before),
        )

    def _two_peaks(self) -> tuple[Peak, Peak] | None:
        few, many = self._peak(min(self._peaks)), self._peak(max(self._peaks))
        return next(((low, many) for low in (few, self._at_rest) if low.bytes < many.bytes), None)

    def _sustained(self, images_per_second: float) -> float:
        """What is streamed is read ahead: a few steps could be faster than the reading, a whole run cannot."""
        return min(images_per_second, self._sample.images_per_second) if self._sample.streamed else images_per_second

    def _first(self, flops_per_image: int) -> int:
        """Images of the first step: few, because nobody knows how long it takes."""
        some = max(self._at_once // 8, 2)
        if self._device.type == "cpu":  # a training step is three forward passes of work
            some = min(some, max(int(_FIRST_FLOPS / (3 * flops_per_image)), 2))
        return min(some, self._at_once)

    def _grown(self, first: int, until: float) -> tuple[Rehearsal, int, float]:
        """The loop at the run's batch size, or at the largest that there is time and memory for, and a step's seconds.

        From `first` images in strides: what a step costs besides its images makes small ones a bad guide.
        """
        loop = self._loop(first)
        longest = loop.step()  # with whatever is done once only
        batch_size, took = first, self._watched(loop, first)
        self.once_seconds = max(longest - took, 0.0)
        while batch_size < self._batch_size:
            affordable = int(_SHARE * (until - time.monotonic()) / took * batch_size)
            larger = min(self._batch_size, _STRIDE * batch_size, affordable)
            at_once = min(larger, self._at_once, self._safe())
            larger = at_once if at_once < self._at_once else larger
            if at_once < larger < self._batch_size:
                larger -= larger % at_once  # in whole parts: some networks do not learn from the one image left over
            if larger < min(1.5 * batch_size, self._batch_size):
                break
            bigger = self._loop(larger, accumulate=math.ceil(larger / self._at_once))
            longer = self._fitting(bigger, at_once)
            if longer is None:
                self._too_many = at_once
                break
            loop, batch_size, took = bigger, larger, longer
        return loop, batch_size, took

    def _safe(self) -> int:
        """Images at once that surely fit in the machine's memory, where nothing says so before it is too late."""
        if self._device.type == "cuda":
            return self._at_once
        last = self._peak(max(self._peaks))
        return largest(self._at_rest, last, free=self._room.free, extra=0) or last.images

    def _evaluated(self, loop: Rehearsal, batch_size: int, until: float) -> tuple[tuple[Peak, Peak], float]:
        """The memory at rest and of a validation's batch, or of as much of one as there is time and memory for; and
        its seconds, when such a batch is no longer the first.
        """
        self._meter.settle()
        self._meter.reset()
        rest = self._meter.read()
        whole = evaluation_batch(height=self._recipe.image_size, width=self._recipe.image_size)
        # An image of a step needs more than one that is only looked at, but perhaps not more than its two views.
        views = 2 if self._recipe.test_time_flip else 1
        safe = whole if self._device.type == "cuda" else max(self._safe() // views, 1)
        images = min(max(batch_size, 2), whole)
        while True:
            seconds = [loop.evaluate(images) for _ in range(2)][-1]
            affordable = int(_SHARE * (until - time.monotonic()) / seconds * images)
            larger = min(whole, _STRIDE * images, affordable, safe)
            if larger <= images or larger < min(1.5 * images, whole):
                break
            images = larger
        at_rest, at_work = (max(read - self._sample.bytes_held, 0) for read in (rest, self._meter.read()))
        return (Peak(images=0, bytes=at_rest), Peak(images=images, bytes=at_work)), seconds

    def _most_that_fit(self, most: int, until: float) -> int | None:
        """By larger batches, twice as many images each time, then between what fits and what does not: beside as much
        as the run's images will take. None where no batch was seen to fit.
        """
        self._meter.settle()
        try:
            beside = torch.empty(self._to_come, dtype=torch.uint8, device=self._device)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            return None
        seen = max(self._peaks)
        fits = 0 if len(beside) else seen  # that one was alone on the device
        while time.monotonic() < until:
            images = (min(2 * fits, most) or seen) if self._too_many is None else (fits + self._too_many) // 2
            if images <= fits * 1.06:
                break
            if self._fitting(self._loop(images), images) is None:
                self._too_many = images
            else:
                fits = images
        del beside
        return fits or None

    def _fitting(self, loop: Rehearsal, at_once: int) -> float | None:
        """A step, its peak noted; seconds, or None where a CUDA device's memory was too little."""
        try:
            return self._watched(loop, at_once)
        except RuntimeError as error:
            if self._device.type != "cuda" or not out_of_memory(error):
                raise
        gc.collect()
        torch.cuda.empty_cache()
        return None

    def _watched(self, loop: Rehearsal, at_once: int) -> float:
        """A step, its peak noted; seconds."""
        self._meter.reset()
        took = loop.step()
        self._peaks[at_once] = max(self._meter.read() - self._sample.bytes_held, 0)
        return took

    def _peak(self, images: int) -> Peak:
        return Peak(images=images, bytes=self._peaks[images])

    def _loop(self, batch_size: int, *, accumulate: int = 1) -> Rehearsal:
        return Rehearsal(
            self._recipe,
            self._sample.of_at_least(batch_size).data,
            self._state,
            self._device,
            classes=self._classes,
            batch_size=batch_size,
            accumulate=accumulate,
            steps_per_epoch=self._steps_per_epoch,
            stop=self._stop,
        )


def sharing(recipe: Recipe, device_type: str) -> int:
    """How many devices of this type share a batch, each with a speed and a memory of its own."""
    return recipe.devices if device_type == "cuda" else 1


def rounded(rate: float) -> float:
    """To four digits, however small: a rate is divided by."""
    return float(f"{rate:.4g}")
