"""What a training can be asked with by name: recipes and networks, in parts."""

from collections.abc import Sequence

from app.services.pages import part
from models.networks.registry import NETWORKS, Entry
from models.recipes import RECIPES, Recipe
from models.recipes.reference import RecipeField, reference


def recipes(*, limit: int, after: str | None) -> tuple[list[tuple[str, Recipe]], str | None]:
    """By name, at most `limit` from behind the one called `after`, and the `after` of the next part, None at the end.

    Raises InvalidError.
    """
    names, following = part(sorted(RECIPES), name=str, limit=limit, after=after)
    return [(name, RECIPES[name]) for name in names], following


def recipe_fields(*, limit: int, after: str | None) -> tuple[Sequence[RecipeField], str | None]:
    """The same of a recipe's fields, in a recipe's order."""
    return part(reference(), name=lambda field: field.name, limit=limit, after=after)


def networks(*, limit: int, after: str | None) -> tuple[Sequence[Entry], str | None]:
    """The same of networks, in the registry's order."""
    return part(list(NETWORKS.values()), name=lambda entry: entry.name, limit=limit, after=after)
