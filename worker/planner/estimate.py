"""How long a run takes, from what was measured."""

import math
from dataclasses import dataclass

from models.recipes import Recipe
from worker.trainer.split_sizes import Sizes

#: The report's part of a run, drawings and the process's end among it, by the time of the process's start: what both
#: take of a core's time, 2.2 s and 3.5 s.
REPORT = 0.6
_RARE = 20  # times as long as a save an epoch takes, where each epoch's end is saved (`worker/trainer/loop.py`)


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Images a second: of training steps, of a validation, of the test, which one device does alone, and of reading
    them from the dataset. Seconds: of one checkpoint (`save`), and until a process can begin with its work (`start`).
    """

    train: float
    evaluate: float
    test: float
    load: float
    save: float = 0.0
    start: float = 0.0


def run_seconds(recipe: Recipe, sizes: Sizes, speed: Speed, *, streamed: bool) -> dict[str, float]:
    """Seconds of a run's parts and their `total`; an end before the last epoch, by accuracy say, is not foreseen."""
    train = recipe.epochs * sizes.steps_per_epoch * sizes.batch / speed.train
    load, validation = _loaded(recipe, sizes, streamed=streamed) / speed.load, sizes.val / speed.evaluate
    save = saves(recipe, sizes, step=sizes.batch / speed.train, validation=validation, save=speed.save) * speed.save
    work, epochs = train + recipe.epochs * validation + save, recipe.epochs
    if recipe.max_seconds is not None and load + work > recipe.max_seconds:
        share = max(recipe.max_seconds - load, 0.0) / work
        train, save = train * share, save * share
        epochs = max(math.ceil(epochs * share), 1)  # the one that is cut short is validated too
    parts = {
        "start": speed.start,
        "load": load,
        "train": train,
        "validate": epochs * validation,
        "save": save,
        "test": (sizes.val + sizes.test) / speed.test,  # val once more, for the calibration
        "report": REPORT * speed.start,
    }
    return {name: round(value, 1) for name, value in {**parts, "total": sum(parts.values())}.items()}


def saves(recipe: Recipe, sizes: Sizes, *, step: float, validation: float, save: float) -> int:
    """How many checkpoints a run writes whose steps, validations and saves take so many seconds: within an epoch when
    the last one is `checkpoint_seconds` old, at its end also when it is 20 times as old as a save takes.
    """
    count, age, took, steps = 0, 0.0, 0.0, sizes.steps_per_epoch
    between = max(1, math.ceil(recipe.checkpoint_seconds / step))  # steps
    for epoch in range(recipe.epochs):
        first = max(1, math.ceil((recipe.checkpoint_seconds - age) / step))
        if first < steps:  # behind the last step the epoch's end comes first
            within = 1 + (steps - 1 - first) // between
            count, took = count + within, save
            age = (steps - first - (within - 1) * between) * step
        else:
            age += steps * step
        age += validation
        if epoch == recipe.epochs - 1 or age >= min(recipe.checkpoint_seconds, _RARE * took):
            count, took, age = count + 1, save, 0.0
    return count


def _loaded(recipe: Recipe, sizes: Sizes, *, streamed: bool) -> int:
    """Images that are read for themselves, those of each process counted; streamed ones for their mean and std only."""
    if streamed:
        return sizes.train * recipe.devices if recipe.mean is None or recipe.std is None else 0
    return (sizes.train + sizes.val) * recipe.devices + sizes.test
