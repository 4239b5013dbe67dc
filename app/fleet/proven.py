"""Which version served each alias last, and was ready: what an alias goes on serving until a newer one is ready, too.

It is on disk, so that a fleet that is started anew, after a crash or with its machine, does not have to trust the
newest version: nobody has seen that one work yet. With it lies which versions clients had loaded (`:load`): the new
fleet loads them again.
"""

import logging
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from app.fleet.plan import Key
from store.files import write_atomic

log = logging.getLogger(__name__)


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True)

    aliases: dict[str, dict[str, int]] = {}
    loaded: dict[str, list[int]] = {}  # not in files of before there was this


class Proven:
    """The record of one data directory, kept by its only fleet. `write` puts on disk what has changed since.

    `loaded`: the versions that were loaded because a client said so; none that only a request needed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written = _read(path)
        self._aliases = dict(self._written.aliases)
        self.loaded: set[Key] = {(name, each) for name, versions in self._written.loaded.items() for each in versions}

    def models(self) -> set[str]:
        return set(self._aliases)

    def of(self, model: str) -> dict[str, int]:
        """The version of each alias of a model; an alias that has served nothing is not in it."""
        return dict(self._aliases.get(model, {}))

    def note(self, model: str, aliases: Mapping[str, int]) -> None:
        """Make this what is known of a model."""
        if aliases:
            self._aliases[model] = dict(aliases)
        else:
            self._aliases.pop(model, None)

    def write(self) -> None:
        """Raises OSError where the disk refuses; the next call tries again."""
        loaded: dict[str, list[int]] = {}
        for name, version in sorted(self.loaded):
            loaded.setdefault(name, []).append(version)
        document = _Document(aliases=self._aliases, loaded=loaded)
        if document != self._written:
            write_atomic(self._path, document.model_dump_json(indent=2).encode())
            self._written = document


def _read(path: Path) -> _Document:
    try:
        return _Document.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return _Document()
    except (OSError, ValueError):
        log.exception("what served last cannot be read; aliases serve what they point to")
        return _Document()
