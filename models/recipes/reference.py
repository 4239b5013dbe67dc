"""What each field of a recipe takes, in words, for those who read about them before they set one."""

import json
from dataclasses import dataclass
from typing import Any

from models.recipes.recipe import Recipe

_KINDS = {"string": "text", "integer": "integer", "number": "number", "boolean": "true or false", "object": "object"}
_SEVERAL = {"integer": "integers", "number": "numbers"}
_BOUNDS = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}


@dataclass(frozen=True)
class RecipeField:
    """`takes` are the values that it may have; `default` is as `--set` takes it, None where each recipe has its own."""

    name: str
    takes: str
    default: str | None
    description: str


def reference() -> list[RecipeField]:
    """Every field of a recipe, in its order."""
    properties = Recipe.model_json_schema()["properties"]
    return [
        RecipeField(
            name=name,
            takes=_takes(properties[name]),
            default=_default(properties[name]),
            description=field.description or "",
        )
        for name, field in Recipe.model_fields.items()
    ]


def _default(schema: dict[str, Any]) -> str | None:
    if "default" not in schema:
        return None
    default = schema["default"]
    return default if isinstance(default, str) else json.dumps(default)


def _takes(schema: dict[str, Any]) -> str:
    """`integer from 1 to 64, or null`, from a JSON schema."""
    if "anyOf" in schema:
        return ", or ".join(_takes(each) for each in schema["anyOf"])
    if "enum" in schema:
        *others, last = (str(each) for each in schema["enum"])
        return f"{', '.join(others)} or {last}"
    if schema.get("type") == "array":
        several = schema.get("prefixItems") or [schema["items"]]
        count = f"{len(several)} " if "prefixItems" in schema else ""
        return f"list of {count}{_SEVERAL[several[0]['type']]}{_bounds(several[0])}"
    if schema.get("type") == "null":
        return "null"
    return _KINDS[schema.get("type", "object")] + _bounds(schema)


def _bounds(schema: dict[str, Any]) -> str:
    """` from 0 to 1`, ` > 0, ≤ 1`; empty where there are none."""
    if "minimum" in schema and "maximum" in schema:
        return f" from {schema['minimum']:,} to {schema['maximum']:,}"
    found = ", ".join(f"{sign} {schema[bound]:,}" for bound, sign in _BOUNDS.items() if bound in schema)
    return f" {found}" if found else ""
