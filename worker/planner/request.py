"""What a plan is asked for, and which of a recipe's fields change what is measured."""

import hashlib
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict

from models.recipes import Recipe

#: Fields that change neither the work of a step nor its memory. A field that is not named here counts.
_OTHER_FIELDS = frozenset(
    {
        "checkpoint_seconds",
        "epochs",
        "freeze_epochs",
        "init",
        "keep",
        "label_smoothing",
        "lr",
        "max_seconds",
        "mean",
        "patience",
        "schedule",
        "seed",
        "std",
        "step_epochs",
        "step_factor",
        "target_accuracy",
        "warmup_epochs",
        "weight_decay",
    }
)


class PlanRequest(BaseModel):
    """The body of a train submission, as far as a plan depends on it.

    `measured`: figures of an earlier measurement of the same work, to be used instead of another one.
    `curve`: nothing but the learning rate as SVG is wanted.
    """

    model_config = ConfigDict(frozen=True)

    dataset: str
    recipe: str
    overrides: dict[str, Any] = {}
    max_seconds: float | None = None
    measured: dict[str, Any] | None = None
    curve: bool = False


def measured_key(recipe: Recipe, dataset_digest: str, machine: str) -> str:
    """The same for two plans whose training steps are the same work on the same machine."""
    fields = recipe.model_dump(mode="json")
    work = {name: value for name, value in fields.items() if name not in _OTHER_FIELDS}
    return _digest("measured", work, dataset_digest, machine)


def plan_key(request: PlanRequest, recipe: Recipe, dataset_digest: str, machine: str) -> str:
    """The same for two questions with the same answer; the answer names the dataset, and overrides without effect."""
    asked = recipe.model_dump(mode="json"), sorted(request.overrides)
    return _digest("plan", asked, request.dataset, request.max_seconds, request.curve, dataset_digest, machine)


def _digest(*parts: object) -> str:
    return hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()
