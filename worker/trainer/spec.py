"""What a train job is asked for: its spec.json, read without torch."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from models.manifest import Name
from models.recipes import Recipe, RecipeError, resolve
from store.datasets import Dataset
from worker.job_process import JobRefused
from worker.job_spec import read_job_spec
from worker.trainer.split_sizes import carves_val


class TrainSpec(BaseModel):
    """spec.json of a train job."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["train"]
    dataset: str
    recipe: str
    overrides: dict[str, Any] = {}
    register_as: Name | None = None
    alias: str | None = None


def read_spec(run_dir: Path) -> tuple[TrainSpec, Recipe]:
    """The spec and the recipe that it means. Raises JobRefused."""
    spec = read_job_spec(run_dir, TrainSpec)
    try:
        return spec, resolve(spec.recipe, spec.overrides)
    except RecipeError as error:
        raise JobRefused("bad_recipe", str(error), error.hint) from error


def identity(recipe: Recipe, dataset: Dataset) -> dict[str, Any]:
    """What a run's checkpoints belong to: this recipe on these data. How the data come makes no difference.

    `hold_out` is how val was carved from train, if it was: checkpoints that lack it are of a time when the seed chose,
    and have learned from what is held out now.
    """
    return {
        "dataset": dataset.digest,
        "hold_out": "content" if carves_val(dataset, recipe) else None,
        "recipe": recipe.model_dump(mode="json", exclude={"loader", "workers"}),
    }


def is_of(stored: dict[str, Any], recipe: Recipe, dataset: Dataset) -> bool:
    """Whether a checkpoint with the identity `stored` is one of a run of `recipe` on `dataset`.

    Fields that the software did not know when it was written are at their defaults, which change nothing.
    """
    own, then = identity(recipe, dataset), stored.get("recipe", {})
    new = own["recipe"].keys() - then.keys()
    neutral = all(getattr(recipe, name) == type(recipe).model_fields[name].get_default() for name in new)
    known = {name: value for name, value in own["recipe"].items() if name not in new}
    same = all(stored.get(name) == own[name] for name in ("dataset", "hold_out"))
    return neutral and same and then == known
