"""What a training leaves for download beside its model: the evaluation's files, and how it went, epoch by epoch."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from models.recipes import Recipe
from store import artifacts
from store.files import write_atomic
from worker.evaluator import documents
from worker.evaluator.documents import Evaluation
from worker.figures import curves, learning_rate
from worker.figures.files import draw
from worker.trainer import optimizer
from worker.trainer.orders import with_settings
from worker.trainer.state import RunState


def write(
    claim_dir: Path,
    evaluation: Evaluation,
    *,
    about: dict[str, Any],
    report: dict[str, Any],
    state: RunState,
    recipe: Recipe,
    steps_per_epoch: int,
    between: Callable[[], None],
) -> None:
    """Write the claim's artifacts, all or none. `report` are the job's metrics, `recipe` the submitted one.

    `between` is called between two drawings; what it raises ends the writing.
    """
    kept_epoch = (state.kept or {}).get("epoch")
    with artifacts.writing(claim_dir) as folder:
        write_atomic(folder / "metrics.json", documents.as_json({**report, "history": state.history}))
        write_atomic(folder / "metrics.csv", documents.as_csv([_row(epoch) for epoch in state.history]))
        draw(folder, "curves", lambda: curves.curves(state.history, kept_epoch=kept_epoch))
        between()
        draw(folder, "learning_rate", lambda: _learning_rates(recipe, state, steps_per_epoch))
        between()
        documents.write(folder, evaluation, about=about, between=between)


def rates(
    recipe: Recipe, changes: Sequence[dict[str, Any]], *, steps: Sequence[int], steps_per_epoch: int
) -> list[float]:
    """The learning rate of each of these steps (ascending), by the settings that held then.

    `changes` are those of the run's state: from which step on the submitted recipe had which settings.
    """
    rates, now, pending = [], recipe, list(changes)
    for step in steps:
        while pending and pending[0]["step"] <= step:
            now = with_settings(recipe, pending.pop(0)["settings"])
        rates.append(optimizer.learning_rate(now, step=step, steps_per_epoch=steps_per_epoch))
    return rates


def _learning_rates(recipe: Recipe, state: RunState, steps_per_epoch: int) -> Figure:
    planned = with_settings(recipe, state.settings)
    steps = learning_rate.sampled_steps(max(state.step, round(planned.epochs * steps_per_epoch)))
    values = rates(recipe, state.changes, steps=steps, steps_per_epoch=steps_per_epoch)
    return learning_rate.learning_rate(steps, values, steps_per_epoch=steps_per_epoch, ended=state.step)


def _row(epoch: dict[str, Any]) -> dict[str, Any]:
    """An epoch event as a line of a table; empty cells where nothing was validated."""
    return {
        "epoch": epoch["epoch"],
        "lr": epoch["lr"],
        **{f"{part}_{name}": (epoch[part] or {}).get(name) for part in ("train", "val") for name in ("loss", "top1")},
        "best": epoch["best"],
        "seconds": epoch["seconds"],
    }
