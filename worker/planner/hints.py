"""Overrides that a hint may name: only such as are accepted when somebody follows it."""

import json
import math

from pydantic import ValidationError

from models.recipes import Recipe, override


def settings(recipe: Recipe, **fields: object) -> str:
    """`image_size=64, resize=73`: the fields as they are written on a command line, with those that follow them.

    Empty where the recipe would be refused with them.
    """
    try:
        changed = override(recipe, fields)
    except ValidationError:
        return ""
    names = [*fields, *({"resize"} - fields.keys() if changed.resize != recipe.resize else ())]
    values = changed.model_dump(mode="json")
    return ", ".join(f"{name}={_written(values[name])}" for name in names)


def advice(*choices: str, otherwise: str) -> str:
    """A sentence of the choices that are not empty, and of what does without an override."""
    named = " or ".join(choice for choice in choices if choice)
    return f"Set {named}, or {otherwise}." if named else f"{otherwise[0].upper()}{otherwise[1:]}."


def fewer_at_once(recipe: Recipe, *, batch: int, fitting: int) -> str:
    """Of a `batch` of which `fitting` images fit in memory, in as many parts as the recipe's: a smaller one, or more
    parts of it.
    """
    if fitting == 0:
        return "Choose a smaller image_size or another network."
    return advice(
        settings(recipe, batch_size=fitting // recipe.devices * recipe.devices),
        settings(recipe, accumulate=math.ceil(recipe.accumulate * batch / fitting)),
        otherwise="choose a smaller image_size or another network",
    )


def _written(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
