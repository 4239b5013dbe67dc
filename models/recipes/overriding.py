"""A recipe with some fields replaced, those that follow them, and refusals that name what would do."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from models.nearest import nearest
from models.networks.registry import NETWORKS
from models.recipes.named import RECIPES
from models.recipes.recipe import Init, Recipe
from models.recipes.sense import Senseless

_SIZE = TypeAdapter[int](Annotated[int, Recipe.model_fields["image_size"]])
_EPOCHS = TypeAdapter[int](Annotated[int, Recipe.model_fields["epochs"]])


class RecipeError(ValueError):
    """A recipe or an override that does not exist or does not fit. `field` names it; `hint` says what would do."""

    def __init__(self, message: str, *, field: str, hint: str) -> None:
        super().__init__(message)
        self.field = field
        self.hint = hint


def resolve(recipe_name: str, overrides: Mapping[str, Any]) -> Recipe:
    """The recipe with the overrides applied. Raises RecipeError, which names the field and the nearest valid name."""
    if recipe_name not in RECIPES:
        raise RecipeError(
            f"no recipe is called {recipe_name!r}; the nearest is {nearest(recipe_name, RECIPES)!r}",
            field="recipe",
            hint=f"Recipes: {', '.join(RECIPES)}.",
        )
    known = list(Recipe.model_fields)
    for name in overrides:
        if name not in known:
            raise RecipeError(
                f"a recipe has no field {name!r}; the nearest is {nearest(name, known)!r}",
                field=f"overrides.{name}",
                hint=f"Fields: {', '.join(known)}.",
            )
    try:
        return override(RECIPES[recipe_name], overrides)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(["overrides", *(str(part) for part in first["loc"])])
        raise RecipeError(f"{field}: {_message(first)}", field=field, hint=_hint(first)) from error


def override(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """The recipe with fields replaced. Raises ValidationError.

    Three fields follow another one where the changes name that one and not them: `resize` follows `image_size` in
    proportion, so that crops and what is classified see as much of an image as before; `step_epochs` follow `epochs`,
    so that the learning rate falls before the end; and `test_time_flip` ends where `horizontal_flip` is turned off.
    """
    return Recipe.model_validate({**recipe.model_dump(), **_following(recipe, changes), **changes})


def _following(recipe: Recipe, changes: Mapping[str, Any]) -> dict[str, Any]:
    following: dict[str, Any] = {}
    try:
        if "image_size" in changes and recipe.resize is not None:
            size = _SIZE.validate_python(changes["image_size"])
            following["resize"] = round(recipe.resize * size / recipe.image_size)
        if "epochs" in changes:
            epochs = _EPOCHS.validate_python(changes["epochs"])
            following["step_epochs"] = tuple(round(at * epochs / recipe.epochs, 2) for at in recipe.step_epochs)
        if changes.get("horizontal_flip") is False:
            following["test_time_flip"] = False
    except ValidationError:  # the field itself is wrong, and the whole recipe's validation says so
        return {}
    return following


def _message(error: ErrorDetails) -> str:
    """What is wrong, with the nearest name where names were to choose from."""
    given, location = error["input"], error["loc"]
    if error["type"] == "literal_error" and isinstance(given, str):
        choices = _choices(str(location[0]))
        if choices:
            return f"{given!r} is none of {', '.join(choices)}; the nearest is {nearest(given, choices)!r}"
    if error["type"] == "extra_forbidden":
        known = list(Init.model_fields)
        name = str(location[-1])
        return f"init has no field {name!r}; the nearest is {nearest(name, known)!r}"
    return error["msg"].removeprefix("Value error, ")


def _choices(field: str) -> list[str]:
    """The names that a field allows; empty where it takes something else."""
    schema = Recipe.model_json_schema()["properties"][field]
    return [each for each in schema.get("enum", []) if isinstance(each, str)]


def _hint(error: ErrorDetails) -> str:
    """What would do, where it is about several fields; else what the field means."""
    location, cause = error["loc"], error.get("ctx", {}).get("error")
    if isinstance(cause, Senseless):
        return cause.hint
    if location and location[0] == "network":
        return f"Networks: {', '.join(NETWORKS)}."
    return Recipe.model_fields[str(location[0])].description or "GET /v1/recipes shows a value that does."
