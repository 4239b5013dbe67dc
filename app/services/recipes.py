"""What a training is asked with, checked against recipes and models before anything is queued."""

from typing import Any

import anyio.to_thread

from app.problems import InvalidError, wrong
from models.catalog import Catalog, ModelNotFound
from models.recipes import RecipeError, completed, resolve
from models.recipes.sense import unlike


async def checked(spec: dict[str, Any], catalog: Catalog) -> dict[str, Any]:
    """The spec of a training with the fields that follow from others named, and where it starts from a model, the
    version that `init` means now. Raises InvalidError.
    """
    try:
        overrides = completed(spec["recipe"], spec["overrides"])
        recipe = resolve(spec["recipe"], overrides)
    except RecipeError as error:
        code = "recipe_not_found" if error.field == "recipe" else "invalid_overrides"
        place = "#/" + error.field.replace(".", "/")
        raise InvalidError(code, f"{error}.", hint=error.hint, errors=wrong(place, str(error))) from error
    spec = {**spec, "overrides": overrides}
    if recipe.init is None or recipe.init.model is None:
        return spec
    place = "#/overrides/init/model"
    try:
        name, version = await anyio.to_thread.run_sync(catalog.resolve, recipe.init.model)
        manifest = await anyio.to_thread.run_sync(catalog.manifest, name, version)
    except ModelNotFound as error:
        errors = wrong(place, str(error))
        raise InvalidError("model_not_found", f"{error}.", hint=error.hint, errors=errors) from error
    if (difference := unlike(manifest, recipe)) is not None:
        message, hint = difference
        raise InvalidError("invalid_overrides", f"overrides.init: {message}.", hint=hint, errors=wrong(place, message))
    return {**spec, "overrides": {**overrides, "init": {"model": f"{name}@{version}"}}}
