"""The run's own training steps, taken one by one: nothing validates, speaks or writes."""

import time
from collections.abc import Callable, Iterator

import torch

from models.recipes import Recipe
from models.runtime import Normalise, with_flip
from worker.job_process import Stop
from worker.trainer import optimizer
from worker.trainer.data import TrainingData
from worker.trainer.distributed import World
from worker.trainer.state import RunState
from worker.trainer.steps import Steps

_CONSTANT = {"schedule": "constant", "warmup_epochs": 0.0}  # an epoch of a rehearsal has fewer steps than the run's


class Rehearsal:
    """Steps of `batch_size` images, computed in `accumulate` parts, whatever the recipe says of both.

    Every layer learns, nothing is compiled, and one device does it all. The learning rates are those of the first steps
    of the run, which has `steps_per_epoch`; after a run that is shorter, that of its last step.
    """

    def __init__(
        self,
        recipe: Recipe,
        data: TrainingData,
        state: RunState,
        device: torch.device,
        *,
        classes: int,
        batch_size: int,
        accumulate: int,
        steps_per_epoch: int,
        stop: Stop,
    ) -> None:
        changed = {"batch_size": batch_size, "accumulate": accumulate, "compile": False, "freeze_epochs": 0.0}
        self._planned, self._steps_per_epoch = recipe, steps_per_epoch
        self._recipe = recipe.model_copy(update=changed)
        self._data, self._state, self._device, self._stop = data, state, device, stop
        self._steps = Steps(recipe=self._recipe, data=data, classes=classes, state=state, device=device, world=World())
        self._normalise = Normalise(data.preprocessing, device)
        self._next = self._endless()

    def step(self) -> float:
        """Take the next training step; seconds until the device was done with it. Raises JobStopped."""
        self._stop.check()
        return self._timed(lambda: next(self._next))

    def evaluate(self, images: int) -> float:
        """The forward pass of a validation, of so many images; seconds. No step may follow. Raises JobStopped."""
        self._stop.check()
        network = with_flip(self._state.judged.eval(), test_time_flip=self._recipe.test_time_flip)
        size = self._recipe.image_size
        shape = (images, size, size, self._recipe.channels)
        pixels = torch.randint(0, 256, shape, dtype=torch.uint8, device=self._device)

        @torch.inference_mode()
        def forward() -> None:
            network(self._normalise(pixels))

        return self._timed(forward)

    def _endless(self) -> Iterator[None]:
        state = self._state
        while True:
            state.epoch_step = 0
            with self._steps.epoch(self._recipe) as step:
                while state.epoch_step < self._steps.per_epoch:
                    step(self._recipe.model_copy(update={"lr": self._rate(), **_CONSTANT}))
                    yield

    def _rate(self) -> float:
        last = self._planned.epochs * self._steps_per_epoch - 1
        step = min(self._state.step, last)
        return optimizer.learning_rate(self._planned, step=step, steps_per_epoch=self._steps_per_epoch)

    def _timed(self, work: Callable[[], object]) -> float:
        began = time.perf_counter()
        work()
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter() - began
