"""The routing table: which engines there are and which version each alias serves. Written by the fleet, read by all."""

import os
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from store.files import write_atomic


class EngineState(StrEnum):
    STARTING = "starting"  # loading, warming up or proving its golden outputs; also between a crash and the restart
    READY = "ready"  # reproduced its golden outputs and answers
    FAILED = "failed"  # `reason` says why; tried again later
    DRAINING = "draining"  # finishes what it has; takes nothing new


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Route(_Frozen):
    """One engine process. `runtime`: what it computes with and how fast that was at load, where it says so."""

    model: str
    version: int
    state: EngineState
    socket: str
    pid: int | None = None
    device: str
    reason: str | None = None
    restarts: int = 0  # processes of this engine that ended without being told to
    runtime: dict[str, Any] | None = None


class Split(_Frozen):
    """Versions beside the one that an alias serves, each with an engine that is ready.

    `canary` answers `percent` of the alias's requests. `shadow` gets a copy of each classification of files, for whose
    answer nobody waits; tensors are prepared for one version, and another may want them otherwise.
    """

    canary: int | None = None
    percent: float = 0.0
    shadow: int | None = None

    def versions(self) -> set[int]:
        return {version for version in (self.canary, self.shadow) if version is not None}

    def among(self, ready: AbstractSet[int]) -> "Split":
        """Without those that are not ready."""
        canary = self.canary if self.canary in ready else None
        percent = 0.0 if canary is None else self.percent
        return Split(canary=canary, percent=percent, shadow=self.shadow if self.shadow in ready else None)

    def version(self, serving: int, draw: float) -> int:
        """Who answers a request that drew this number of [0, 1): the canary for `percent` of all draws."""
        return self.canary if self.canary is not None and draw * 100 < self.percent else serving


_UNDIVIDED = Split()


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Who answers one request, whether that is the alias's canary, and who gets a copy of it."""

    model: str
    version: int
    canary: bool = False
    shadow: int | None = None


class Routes(_Frozen):
    """`aliases[name][alias]` is the version that serves now, which lags the catalog while a new version loads.

    `splits[name][alias]` is there where the alias has a canary or a shadow that can be asked.
    """

    engines: tuple[Route, ...] = ()
    aliases: dict[str, dict[str, int]] = {}
    splits: dict[str, dict[str, Split]] = {}

    def engine(self, model: str, version: int) -> Route | None:
        """The engine that serves, or will serve, a version; None where there is none or it is on its way out."""
        same = [each for each in self.engines if (each.model, each.version) == (model, version)]
        return next((each for each in same if each.state is not EngineState.DRAINING), None)

    def ready(self, model: str, selector: str) -> int | None:
        """The version that is selected by its number, where its engine is ready: so long nobody can delete it."""
        named = (each for each in self.engines if each.model == model and str(each.version) == selector)
        return next((each.version for each in named if each.state is EngineState.READY), None)

    def choose(self, model: str, alias: str, draw: float) -> Choice | None:
        """Who answers a request to an alias, by a number drawn from [0, 1); None for a model that is not loaded."""
        serving = self.aliases.get(model, {}).get(alias)
        if serving is None:
            return None
        split = self.splits.get(model, {}).get(alias, _UNDIVIDED)
        version = split.version(serving, draw)
        shadow = None if split.shadow == version else split.shadow
        return Choice(model=model, version=version, canary=version != serving, shadow=shadow)

    def write(self, path: Path) -> None:
        write_atomic(path, self.model_dump_json().encode())


class RoutesFile:
    """The table as it is now, parsed again only when the file has changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._routes = Routes()

    def read(self) -> Routes:
        """The current table; an empty one where no fleet has written any."""
        try:
            stat = os.stat(self._path)  # noqa: PTH116 - several times for each request
            seen = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
            if seen != self._seen:
                self._routes = Routes.model_validate_json(self._path.read_bytes())
                self._seen = seen
        except FileNotFoundError:
            self._seen, self._routes = None, Routes()
        return self._routes
