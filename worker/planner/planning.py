"""A plan, from its request to its lines: what can be counted, then what must be measured, then what must be read."""

import time
from dataclasses import dataclass, replace
from pathlib import Path

from models.manifest import NetworkSpec
from models.recipes import Recipe, RecipeError, resolve
from store.datasets import Dataset
from store.layout import Layout
from worker.job_process import OUT_OF_MEMORY, JobRefused, Stop, emit, out_of_memory
from worker.planner import network, sample
from worker.planner.curve import learning_rates
from worker.planner.identical import compare
from worker.planner.measuring import Measured, Measurement, rounded
from worker.planner.problems import error, find_problems, warning
from worker.planner.request import PlanRequest
from worker.planner.saving import kept_bytes, saving_seconds
from worker.planner.summary import MOST, Plan, Reason
from worker.trainer.data import described
from worker.trainer.distributed import World, too_few_devices
from worker.trainer.fresh import fresh_state
from worker.trainer.precision import prepared_device
from worker.trainer.split_sizes import Sizes, sizes


@dataclass(frozen=True, kw_only=True)
class _Training:
    """What is to be planned."""

    recipe: Recipe
    dataset: Dataset
    folder: Path

    @property
    def sizes(self) -> Sizes:
        return sizes(self.dataset, self.recipe)

    @property
    def network(self) -> NetworkSpec:
        """The trainer refuses a dataset of one class; its plan counts the network all the same."""
        classes = max(len(self.dataset.classes), 2)
        return NetworkSpec(name=self.recipe.network, num_classes=classes, in_channels=self.recipe.channels)


def plan(
    request: PlanRequest,
    *,
    data_dir: Path,
    device_name: str,
    measure: bool,
    stop: Stop,
    started: float | None = None,
) -> None:
    """Say the plan, the last time as whole as it gets. A device that is not to `measure` on is not touched.

    `started`: when this process was, by the monotonic clock; now, where nobody says. Raises JobRefused where the
    dataset or the recipe is not there.
    """
    start_seconds = 0.0 if started is None else time.monotonic() - started
    training = _training(request, Layout(data_dir).dataset(request.dataset))
    per_epoch = training.sizes.steps_per_epoch
    steps, rates = learning_rates(training.recipe, per_epoch)
    if request.curve:
        emit("plan", {"svg": _drawn(steps, rates, max(per_epoch, 1))})
        return

    refusal = too_few_devices(device_name, training.recipe.devices)
    problems = find_problems(training.dataset, training.recipe, training.sizes, overridden=request.overrides.keys())
    parameters, flops = network.count(training.network, size=training.recipe.image_size)
    found = Plan(
        recipe=training.recipe,
        sizes=training.sizes,
        parameters=parameters,
        flops_per_image=flops,
        curve=(steps, rates),
        device_name=device_name,
        problems=problems if refusal is None else [error(*refusal), *problems],
        max_seconds=request.max_seconds,
        overridden=tuple(request.overrides),
    )
    if found.refused:
        emit("plan", found.as_json(without="refused"))
        return
    without: Reason = "device_busy"
    try:
        if request.measured is not None:
            found.measured, found.cached = Measured.of(request.measured), True
        elif measure:
            emit("plan", found.as_json(without="not_finished"))  # for whoever must do without the rest
            found.measured = _measured(training, device_name, data_dir, start_seconds, flops_per_image=flops, stop=stop)
            emit("measured", found.measured.as_json())
        found.problems += compare(training.folder, training.dataset, training.recipe)
    except JobRefused as refusal:  # the trainer would say the same
        without = "refused"
        found.problems.append(error(refusal.code, str(refusal), refusal.hint))
    except (RuntimeError, MemoryError) as failure:
        if not out_of_memory(failure):
            raise
        without = "out_of_memory"
        found.problems.append(warning(without, OUT_OF_MEMORY["message"], OUT_OF_MEMORY["hint"]))
    emit("plan", found.as_json(without=without))


def _training(request: PlanRequest, folder: Path) -> _Training:
    try:
        recipe = resolve(request.recipe, request.overrides)
    except RecipeError as wrong:
        raise JobRefused("bad_recipe", str(wrong), wrong.hint) from wrong
    return _Training(recipe=recipe, dataset=described(folder, request.dataset), folder=folder)


def _measured(
    training: _Training, device_name: str, data_dir: Path, start_seconds: float, *, flops_per_image: int, stop: Stop
) -> Measured:
    began = time.monotonic()
    device = prepared_device(device_name, training.recipe)
    state = fresh_state(training.network, training.recipe, device, World())
    start_seconds += time.monotonic() - began
    measurement = Measurement(
        training.recipe,
        sample.take(training.folder, training.dataset, training.recipe),
        state,
        device,
        classes=len(training.dataset.classes),
        sizes=training.sizes,
        stop=stop,
    )
    measured = measurement.run(flops_per_image=flops_per_image, most=min(training.sizes.train, MOST))
    return replace(
        measured,
        save_seconds=rounded(saving_seconds(state, data_dir)),
        start_seconds=rounded(start_seconds + measurement.once_seconds),
        kept_bytes=kept_bytes(state),
    )


def _drawn(steps: list[int], rates: list[float], steps_per_epoch: int) -> str:
    from worker.figures import canvas  # noqa: PLC0415 - matplotlib takes a second, and most plans need none
    from worker.figures.learning_rate import learning_rate  # noqa: PLC0415 - likewise

    return canvas.svg(learning_rate(steps, rates, steps_per_epoch=steps_per_epoch)).decode()
