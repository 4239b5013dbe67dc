"""The routing table: which engines there are and which version each alias serves. Written by the fleet, read by all."""

from enum import StrEnum
from pathlib import Path

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
    """One engine process."""

    model: str
    version: int
    state: EngineState
    socket: str
    pid: int | None = None
    device: str
    reason: str | None = None


class Routes(_Frozen):
    """`aliases[name][alias]` is the version that serves now, which lags the catalog while a new version loads."""

    engines: tuple[Route, ...] = ()
    aliases: dict[str, dict[str, int]] = {}

    def engine(self, model: str, version: int) -> Route | None:
        """The engine that serves, or will serve, a version; None where there is none or it is on its way out."""
        same = [each for each in self.engines if (each.model, each.version) == (model, version)]
        return next((each for each in same if each.state is not EngineState.DRAINING), None)

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
            stat = self._path.stat()
            seen = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
            if seen != self._seen:
                self._routes = Routes.model_validate_json(self._path.read_bytes())
                self._seen = seen
        except FileNotFoundError:
            self._seen, self._routes = None, Routes()
        return self._routes
