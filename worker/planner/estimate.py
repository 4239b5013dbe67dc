"""How long a run takes, from what was measured."""

import math
from dataclasses import dataclass

from models.recipes import Recipe
from worker.trainer.split_sizes import Sizes


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Images a second: of training steps, of a validation, of the test, which one device does alone, and of reading
    them from the dataset.
    """

    train: float
    evaluate: float
    test: float
    load: float


def run_seconds(recipe: Recipe, sizes: Sizes, speed: Speed, *, streamed: bool) -> dict[str, float]:
    """Seconds of a run's parts and their `total`; an end before the last epoch, by accuracy say, is not foreseen."""
    steps = recipe.epochs * sizes.steps_per_epoch
    train, epochs = steps * sizes.batch / speed.train, recipe.epochs
    if recipe.max_seconds is not None and train > recipe.max_seconds:
        epochs = math.ceil(epochs * recipe.max_seconds / train)  # the one that is cut short is validated too
        train = recipe.max_seconds
    parts = {
        "load": _loaded(recipe, sizes, streamed=streamed) / speed.load,
        "train": train,
        "validate": epochs * sizes.val / speed.evaluate,
        "test": (sizes.val + sizes.test) / speed.test,  # val once more, for the calibration
    }
    return {name: round(value, 1) for name, value in {**parts, "total": sum(parts.values())}.items()}


def _loaded(recipe: Recipe, sizes: Sizes, *, streamed: bool) -> int:
    """Images that are read for themselves, those of each process counted; streamed ones for their mean and std only."""
    if streamed:
        return sizes.train * recipe.devices if recipe.mean is None or recipe.std is None else 0
    return (sizes.train + sizes.val) * recipe.devices + sizes.test
