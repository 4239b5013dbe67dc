"""A recipe with some fields replaced, and refusals that name the field and the nearest thing that would do."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from models.networks.registry import NETWORKS
from models.recipes.named import RECIPES
from models.recipes.recipe import Init, Recipe


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
            f"no recipe is called {recipe_name!r}; the nearest is {nearest(recipe_name, list(RECIPES))!r}",
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
        return Recipe.model_validate({**RECIPES[recipe_name].model_dump(), **overrides})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(["overrides", *(str(part) for part in first["loc"])])
        raise RecipeError(f"{field}: {_message(first)}", field=field, hint=_hint(first["loc"])) from error


def nearest(name: str, known: Sequence[str]) -> str:
    """The most similar of the known names, whatever the case of the letters."""
    lower = {each.lower(): each for each in reversed(known)}
    return lower[difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.0)[0]]


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


def _hint(location: tuple[int | str, ...]) -> str:
    """What the field means, for the reader of an error."""
    if location and location[0] == "network":
        return f"Networks: {', '.join(NETWORKS)}."
    if not location:  # it is about several fields
        return "Override the other field as well; `resnetd recipes` and GET /v1/recipes show what the recipe has."
    return Recipe.model_fields[str(location[0])].description or "GET /v1/recipes shows a value that does."
