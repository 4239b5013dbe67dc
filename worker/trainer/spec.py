"""What a train job is asked for: its spec.json, read without torch."""

import hashlib
from pathlib import Path
from typing import Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from models.manifest import Name
from models.recipes import Recipe, RecipeError, resolve
from store.datasets import Dataset
from worker.job_process import JobRefused


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
    try:
        spec = TrainSpec.model_validate_json((run_dir / "spec.json").read_bytes())
        return spec, resolve(spec.recipe, spec.overrides)
    except FileNotFoundError as error:
        raise JobRefused("no_spec", f"{run_dir} holds no spec.json", "Give the folder of a job.") from error
    except RecipeError as error:
        raise JobRefused("bad_recipe", str(error), error.hint) from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "spec.json"
        raise JobRefused("bad_spec", f"{where}: {first['msg']}", "Correct spec.json.") from error


def fingerprint_of(recipe: Recipe, dataset: Dataset) -> str:
    """What a checkpoint belongs to: the same recipe on the same data.

    How the data come and how the network is asked make no difference to what it learns. Fields at their defaults are
    left out, so that a run goes on when the software has come to know another field.
    """
    choices = recipe.model_dump(mode="json", exclude={"loader", "workers", "test_time_flip"}, exclude_defaults=True)
    return hashlib.sha256(orjson.dumps([choices, dataset.digest])).hexdigest()
