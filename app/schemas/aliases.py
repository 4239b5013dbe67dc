"""Aliases as requests name them and answers show them."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from models.aliases import Canary, Past, Shadow
from models.manifest import Name

ALIAS_EXAMPLE: dict[str, Any] = {
    "model": "fashion",
    "alias": "production",
    "version": 3,
    "canary": {"version": 4, "percent": 10.0},
    "shadow": {"version": 5},
    "since": "2026-01-31T12:00:00Z",
    "history": [
        {"version": 2, "since": "2026-01-30T09:00:00Z", "until": "2026-01-31T12:00:00Z", "left_by": "set"},
    ],
}
ALIAS_REQUEST_EXAMPLE: dict[str, Any] = {
    "version": 3,
    "canary": {"version": 4, "percent": 10},
    "shadow": {"version": 5},
}


def _no_number(alias: str) -> str:
    """`name@3` is a version."""
    if alias.isdigit():
        raise ValueError("alias must not be a number")
    return alias


AliasName = Annotated[Name, AfterValidator(_no_number)]


class AliasRequest(BaseModel):
    """All of an alias: without a canary or a shadow it has none."""

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra={"examples": [ALIAS_REQUEST_EXAMPLE]})

    version: int = Field(ge=1)
    canary: Canary | None = Field(None, description="A version that answers `percent` of the alias's requests.")
    shadow: Shadow | None = Field(None, description="A version that gets a copy of each file; its labels are compared.")


class AliasBody(BaseModel):
    """An alias. `history` has what it pointed to before, the oldest first."""

    model_config = ConfigDict(json_schema_extra={"examples": [ALIAS_EXAMPLE]})

    model: str
    alias: str
    version: int
    canary: Canary | None
    shadow: Shadow | None
    since: datetime | None = Field(description="When it came to its version; null where nobody set it.")
    history: list[Past]


class AliasesBody(BaseModel):
    """Every alias of a model. `production`, where nobody set it, is the newest version."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"model": "fashion", "aliases": {"production": ALIAS_EXAMPLE}}]}
    )

    model: str
    aliases: dict[str, AliasBody]


DESCRIBED = (AliasRequest,)  # a body that the route reads by hand
