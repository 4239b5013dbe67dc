"""aliases.json: what each alias of a model points to, who shares its requests, and what it pointed to before."""

import hashlib
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models.manifest import ModelDamagedError
from store.files import read_json, write_atomic

FILE = "aliases.json"
Why = Literal["set", "rollback"]
_HISTORY = 50  # past targets kept of each alias


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Canary(_Frozen):
    """A version that answers a share of an alias's requests."""

    version: int = Field(ge=1)
    percent: float = Field(ge=0, le=100, description="Share of the alias's requests, 0 to 100.")


class Shadow(_Frozen):
    """A version that gets a copy of an alias's requests; nobody waits for its answers."""

    version: int = Field(ge=1)


class Past(_Frozen):
    """A version that the alias pointed to from `since` until `until`, and what ended that."""

    version: int
    since: datetime | None
    until: datetime
    left_by: Why


class Alias(_Frozen):
    """One alias. `since`: when it came to its version; None where that was not written down."""

    version: int
    canary: Canary | None = None
    shadow: Shadow | None = None
    since: datetime | None = None
    history: tuple[Past, ...] = ()

    def versions(self) -> set[int]:
        """All versions that it needs."""
        return {self.version, *(each.version for each in (self.canary, self.shadow) if each is not None)}

    def moved(
        self,
        *,
        version: int,
        canary: Canary | None,
        shadow: Shadow | None,
        at: datetime,
        by: Why,
    ) -> "Alias":
        """The alias with other targets. A version that it leaves goes into its history."""
        if version == self.version:
            return self.model_copy(update={"canary": canary, "shadow": shadow})
        past = Past(version=self.version, since=self.since, until=at, left_by=by)
        return Alias(version=version, canary=canary, shadow=shadow, since=at, history=(*self.history, past)[-_HISTORY:])

    def previous(self, there: set[int]) -> int | None:
        """Where a rollback goes: the version before this one that is still `there`; None where there is none.

        A rollback of a rollback goes further back, and never to what was rolled back from.
        """
        stack: list[int] = []
        arrivals = [] if not self.history else [*(past.version for past in self.history[1:]), self.version]
        for past, arrived in zip(self.history, arrivals, strict=True):
            if past.left_by == "set":
                stack.append(past.version)
                continue
            while stack and stack.pop() != arrived:  # it went to what lay on top, or below that where it was gone
                pass
        return next((version for version in reversed(stack) if version in there and version != self.version), None)


class Aliases(_Frozen):
    """The document. `highest`: the highest version number that was ever given, of which deleted ones are not reused."""

    format: Literal[2] = 2
    highest: int = 0
    aliases: dict[str, Alias] = {}

    @classmethod
    def read(cls, folder: Path) -> "Aliases":
        """An empty document where there is none. Files of the first format, `{"production": 3}`, are read too.

        Raises ModelDamagedError for what is neither.
        """
        try:
            found = read_json(folder / FILE)
            if isinstance(found, dict) and not isinstance(found.get("aliases"), dict):
                found = {"aliases": {name: {"version": version} for name, version in found.items()}}
            return cls.model_validate(found)
        except (FileNotFoundError, NotADirectoryError):
            return cls()
        except ValidationError as error:
            why = error.errors(include_url=False)[0]["msg"]
            raise ModelDamagedError(f"the {FILE} of {folder.name} is damaged: {why}") from error
        except orjson.JSONDecodeError as error:
            raise ModelDamagedError(f"the {FILE} of {folder.name} is damaged: {error}") from error

    def write(self, folder: Path) -> None:
        write_atomic(folder / FILE, self.model_dump_json(indent=2).encode())

    def put(self, name: str, alias: Alias) -> "Aliases":
        return self.model_copy(update={"aliases": {**self.aliases, name: alias}})

    def without(self, name: str) -> "Aliases":
        return self.model_copy(update={"aliases": {n: each for n, each in self.aliases.items() if n != name}})


def etag(aliases: Mapping[str, Alias]) -> str:
    """A digest of aliases as they are, histories included."""
    content: dict[str, Any] = {name: alias.model_dump(mode="json") for name, alias in aliases.items()}
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]
