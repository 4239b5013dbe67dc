"""Refusals of recipes and their overrides: what is wrong, and what would do."""

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from models.nearest import close, nearest
from models.networks.registry import NETWORKS
from models.recipes.named import RECIPES
from models.recipes.recipe import Init, Recipe
from models.recipes.reference import reference
from models.recipes.sense import Senseless
from models.recipes.synonyms import meant

ADAMW_LR = 0.001  # torch's own default
_LIST = "GET /v1/recipe-fields and `resnetd recipes NAME` list all fields."
_ABSENT = {
    "muon": "torch's Muon takes two-dimensional parameters alone, and a convolution's weights have four dimensions",
    "lamb": "torch has no LAMB, and nor has any other library that is used here",
}


class RecipeError(ValueError):
    """A recipe or an override that does not exist or does not fit. `field` names it; `hint` says what would do."""

    def __init__(self, message: str, *, field: str, hint: str) -> None:
        super().__init__(message)
        self.field = field
        self.hint = hint


def unknown_recipe(name: str) -> RecipeError:
    return RecipeError(
        f"no recipe is called {name!r}; the nearest is {nearest(name, RECIPES)!r}",
        field="recipe",
        hint=f"Recipes: {', '.join(RECIPES)}.",
    )


def unknown_field(name: str) -> RecipeError:
    near = meant(name)
    likely = " or ".join(map(repr, near))
    return RecipeError(
        f"a recipe has no field {name!r}" + (f"; the nearest is {likely}" if near else ""),
        field=f"overrides.{name}",
        hint=" ".join([*map(_meaning, near), _LIST]),
    )


def unfit(error: ValidationError) -> RecipeError:
    """The first of the errors."""
    first = error.errors(include_url=False)[0]
    field = ".".join(["overrides", *(str(part) for part in first["loc"])])
    return RecipeError(f"{field}: {_message(first)}", field=field, hint=_hint(first))


def _message(error: ErrorDetails) -> str:
    """What is wrong, with the nearest name where names were to choose from and one is near."""
    given, location = error["input"], error["loc"]
    if error["type"] == "literal_error" and isinstance(given, str) and (choices := _choices(str(location[0]))):
        if location[0] == "optimizer" and given.lower() in _ABSENT:
            return f"{given!r} is none of {', '.join(choices)}: {_ABSENT[given.lower()]}"
        near = _near(given, choices)
        return f"{given!r} is none of {', '.join(choices)}" + (f"; the nearest is {near!r}" if near else "")
    if error["type"] == "extra_forbidden":
        near = _near(str(location[-1]), list(Init.model_fields))
        return f"init has no field {location[-1]!r}" + (f"; the nearest is {near!r}" if near else "")
    return error["msg"].removeprefix("Value error, ")


def _near(given: str, choices: list[str]) -> str | None:
    """The longest that is a part of what was given, such as cosine of cosine_annealing; else one that is much alike."""
    parts = [each for each in choices if each in given.lower()]
    return max(parts, key=len) if parts else close(given, choices, cutoff=0.6)


def _choices(field: str) -> list[str]:
    """The names that a field allows; empty where it takes something else."""
    schema = Recipe.model_json_schema()["properties"][field]
    return [each for each in schema.get("enum", []) if isinstance(each, str)]


def _hint(error: ErrorDetails) -> str:
    """What would do, where it is about several fields; else what the field takes and means."""
    location, cause = error["loc"], error.get("ctx", {}).get("error")
    if isinstance(cause, Senseless):
        return cause.hint
    name = str(location[0])
    if name == "network":
        return f"Networks: {', '.join(NETWORKS)}."
    if name == "optimizer" and str(error["input"]).lower() in _ABSENT:
        return f"Set optimizer=adamw and lr={ADAMW_LR} for one whose steps adapt as well. {_meaning(name)}"
    return _meaning(name)


def _meaning(name: str) -> str:
    field = next(each for each in reference() if each.name == name)
    return f"{name} takes {field.takes}. {field.description}"
