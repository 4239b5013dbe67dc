"""A recipe with some fields replaced, and those that follow them."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import TypeAdapter, ValidationError

from models.recipes.named import RECIPES
from models.recipes.recipe import Recipe
from models.recipes.refusals import unfit, unknown_field, unknown_recipe

_SIZE = TypeAdapter[int](Annotated[int, Recipe.model_fields["image_size"]])
_EPOCHS = TypeAdapter[int](Annotated[int, Recipe.model_fields["epochs"]])


def named(recipe_name: str, overrides: Mapping[str, Any]) -> Recipe:
    """The recipe of that name, which has all of these fields. Raises RecipeError."""
    if recipe_name not in RECIPES:
        raise unknown_recipe(recipe_name)
    unknown = next((name for name in overrides if name not in Recipe.model_fields), None)
    if unknown is not None:
        raise unknown_field(unknown)
    return RECIPES[recipe_name]


def resolve(recipe_name: str, overrides: Mapping[str, Any]) -> Recipe:
    """What a job's spec means. Raises RecipeError, which names the field and what would do.

    It means the same for as long as a job lives, and what it accepted once it accepts: a job whose recipe becomes
    another one does not go on from its checkpoints. What new jobs are asked with goes through `completed` before.
    """
    recipe = named(recipe_name, overrides)
    try:
        return override(recipe, overrides)
    except ValidationError as error:
        raise unfit(error) from error


def override(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """The recipe with fields replaced. Raises ValidationError.

    Three fields follow another one where the changes name that one and not them: `resize` follows `image_size` in
    proportion, so that crops and what is classified see as much of an image as before; `step_epochs` follow `epochs`,
    so that the learning rate falls before the end; and `test_time_flip` ends where `horizontal_flip` is turned off.
    The warm-up stays: a training under way whose `epochs` are changed has had its own.
    """
    return Recipe.model_validate(replaced(recipe, changes))


def replaced(recipe: Recipe, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The same as values that nobody has looked at yet."""
    return {**recipe.model_dump(), **_following(recipe, changes), **changes}


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
