"""What orders mean to a training: new settings from the next step on, an end by request, a checkpoint now."""

from typing import Any

from pydantic import ValidationError

from models.recipes import Recipe, override
from worker.job_process import emit
from worker.orders import Orders
from worker.trainer.state import RunState

SETTINGS = ("lr", "epochs", "patience")  # what may change while a training runs: nothing that the data depends on


def with_settings(submitted: Recipe, settings: dict[str, Any]) -> Recipe:
    """The submitted recipe with changed settings. Raises ValueError where they do not fit it or may not change."""
    unknown = sorted(settings.keys() - set(SETTINGS))
    if unknown:
        raise ValueError(f"{', '.join(unknown)} cannot change while a training runs; {', '.join(SETTINGS)} can")
    return override(submitted, settings)


def take_settings(submitted: Recipe, state: RunState, orders: Orders) -> Recipe | None:
    """Remember changed settings and return the recipe from the next step on; None when nothing changes."""
    if orders.settings == state.settings:
        return None
    try:
        recipe = with_settings(submitted, orders.settings)
    except ValueError as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        emit("warning", {"code": "bad_settings", "message": f"settings that do not fit are not followed: {reason}"})
        return None
    state.settings = dict(orders.settings)
    state.changes.append({"step": state.step, "settings": state.settings})
    emit("log", {"message": f"new settings from step {state.step} on", "step": state.step, "settings": state.settings})
    return recipe


def ordered_end(recipe: Recipe, state: RunState, orders: Orders) -> str | None:
    """Why training ends between two steps because somebody wants it to, or None.

    Who is to keep what it has takes a first step before, so that there is something.
    """
    if orders.finish and state.step > 0:
        return "finish"
    return "epochs" if recipe.epochs <= state.epoch else None


def warn_of_late_orders(state: RunState, orders: Orders | None) -> None:
    """Say so where something was asked for after the last step."""
    if orders is not None and (orders.settings != state.settings or orders.checkpoint > state.asked):
        emit("warning", {"code": "too_late", "message": "training had ended before the orders came"})
