"""The learning rate of a whole run, in few points."""

from models.recipes import Recipe
from worker.trainer.optimizer import learning_rate

POINTS = 200


def steps_shown(recipe: Recipe, steps_per_epoch: int) -> list[int]:
    """At most about 200 steps: evenly apart, the first, the last, and those around each bend."""
    total = recipe.epochs * steps_per_epoch
    if total <= 0:
        return []
    even = {round(i * (total - 1) / (POINTS - 1)) for i in range(POINTS)}
    bends = [recipe.warmup_epochs, *recipe.step_epochs]
    around = {int(epochs * steps_per_epoch) + near for epochs in bends for near in (-1, 0, 1)}
    return sorted(even | {step for step in around if 0 <= step < total})


def learning_rates(recipe: Recipe, steps_per_epoch: int) -> tuple[list[int], list[float]]:
    """Steps, from 0, and the learning rate of each; points on the line between their neighbours are left out."""
    steps = steps_shown(recipe, steps_per_epoch)
    rates = [learning_rate(recipe, step=step, steps_per_epoch=steps_per_epoch) for step in steps]
    tolerance = 1e-6 * recipe.lr

    def bends(i: int) -> bool:
        if i in (0, len(steps) - 1):
            return True
        share = (steps[i] - steps[i - 1]) / (steps[i + 1] - steps[i - 1])
        return abs(rates[i - 1] + share * (rates[i + 1] - rates[i - 1]) - rates[i]) > tolerance

    kept = [i for i in range(len(steps)) if bends(i)]
    return [steps[i] for i in kept], [float(f"{rates[i]:.6g}") for i in kept]
