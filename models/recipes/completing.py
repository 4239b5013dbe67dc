"""What a new training is asked with: checked more strictly than a stored spec, and with the fields that follow named.

They are written into the spec, not found anew at each claim: so a job goes on from its checkpoints although these rules
change, and `epochs` that are changed on the way leave the warm-up as it was.
"""

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from models.recipes.overriding import named, replaced
from models.recipes.recipe import Recipe
from models.recipes.refusals import ADAMW_LR, RecipeError, unfit

_RISE = 0.3  # of the epochs: where torch's OneCycleLR has its peak
_ADAMW_MOST = 0.1


def completed(recipe_name: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The overrides with those that follow them. Raises RecipeError, which names the field and what would do.

    Values are taken as JSON has them: no text for a number, no number for true.
    """
    recipe = named(recipe_name, overrides)
    whole = {**overrides, **_following(recipe, overrides)}
    try:
        Recipe.model_validate_json(json.dumps(replaced(recipe, whole)), strict=True)
    except ValidationError as error:
        raise unfit(error) from error
    _check_rate(recipe, overrides)
    return whole


def _following(recipe: Recipe, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Fields that others imply and that the overrides do not name."""
    epochs = overrides.get("epochs", recipe.epochs)
    if type(epochs) is not int or epochs < 1:  # wrong, and the whole recipe's validation says so
        return {}
    schedule, following = overrides.get("schedule", recipe.schedule), dict[str, Any]()
    if epochs < recipe.epochs:
        share = epochs / recipe.epochs
        following |= {name: round(getattr(recipe, name) * share, 2) for name in ("warmup_epochs", "freeze_epochs")}
    if schedule == "one_cycle" and not recipe.warmup_epochs:
        following["warmup_epochs"] = round(epochs * _RISE, 2)
    if schedule != "step":
        following["step_epochs"] = []
    if overrides.get("patience") is not None:
        following["keep"] = "best"
    own = recipe.model_dump(mode="json")
    return {name: value for name, value in following.items() if name not in overrides and value != own[name]}


def _check_rate(recipe: Recipe, overrides: Mapping[str, Any]) -> None:
    """AdamW moves each weight by about the learning rate in a step, whatever its gradient."""
    if overrides.get("optimizer", recipe.optimizer) != "adamw":
        return
    if "lr" not in overrides and recipe.optimizer != "adamw":
        raise RecipeError(
            f"overrides.optimizer: the recipe's lr of {recipe.lr:g} is for {recipe.optimizer}, too high for adamw",
            field="overrides.optimizer",
            hint=f"Set lr={ADAMW_LR} as well: torch's default for AdamW, from where others can be tried.",
        )
    if overrides.get("lr", recipe.lr) > _ADAMW_MOST:
        raise RecipeError(
            f"overrides.lr: adamw moves each weight by about lr in a step: {overrides['lr']:g} is far too much",
            field="overrides.lr",
            hint=f"Set lr={ADAMW_LR}, torch's default for AdamW; more than {_ADAMW_MOST} is refused.",
        )
