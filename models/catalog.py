"""Models on disk: immutable numbered versions, and aliases that point to one of them.

A version appears whole, by rename, and never changes. Writers of one name take turns by a lock on a file (flock), so
that several processes may publish at once; readers need no lock.
"""

import fcntl
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from pydantic import TypeAdapter, ValidationError

from models.manifest import GOLDEN, MANIFEST, WEIGHTS, Manifest, Name
from store.faults import point
from store.files import publish_dir, read_json, remove_temporary, write_json

PRODUCTION = "production"
STARTERS = Path(__file__).parent / "starters"  # the models that come with this project
_ALIASES = "aliases.json"
_NAME: TypeAdapter[str] = TypeAdapter(Name)
_VERSION = re.compile(r"[1-9][0-9]{0,8}")


class ModelNotFound(LookupError):
    """No such model, version or alias. `hint` says what there is."""

    def __init__(self, ref: str, hint: str) -> None:
        super().__init__(f"there is no model {ref!r}")
        self.ref = ref
        self.hint = hint


class Catalog:
    """The models below one folder: `<root>/<name>/<version>/` and `<root>/<name>/aliases.json`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._manifests: dict[tuple[str, int], Manifest] = {}

    def names(self) -> list[str]:
        """Names with at least one version, sorted."""
        if not self.root.is_dir():
            return []
        return sorted(each.name for each in self.root.iterdir() if _valid(each.name) and self.versions(each.name))

    def versions(self, name: str) -> list[int]:
        """The versions of a model, oldest first; empty where there is no such model."""
        if not _valid(name):
            return []
        with suppress(FileNotFoundError, NotADirectoryError):
            return sorted(int(each.name) for each in (self.root / name).iterdir() if _VERSION.fullmatch(each.name))
        return []

    def aliases(self, name: str) -> dict[str, int]:
        """What each alias of a model points to; empty where it has none."""
        if not _valid(name):
            return {}
        with suppress(FileNotFoundError, NotADirectoryError):
            return {str(alias): int(version) for alias, version in read_json(self.root / name / _ALIASES).items()}
        return {}

    def targets(self, name: str) -> dict[str, int]:
        """The aliases of a model as they serve: `production`, where nobody set it, is the newest version."""
        versions = self.versions(name)
        return {PRODUCTION: versions[-1], **self.aliases(name)} if versions else {}

    def folder(self, name: str, version: int) -> Path:
        """Where a version lies. Raises ModelNotFound."""
        if version not in self.versions(name):
            raise ModelNotFound(f"{name}@{version}", self._hint(name))
        return self.root / name / str(version)

    def manifest(self, name: str, version: int) -> Manifest:
        """A version's model.json. Read once: versions never change. Raises ModelNotFound."""
        found = self._manifests.get((name, version))
        if found is None:
            found = self._manifests[name, version] = Manifest.read(self.folder(name, version))
        return found

    def resolve(self, ref: str) -> tuple[str, int]:
        """`name`, `name@3` or `name@alias` as name and version; `name` is `name@production`. Raises ModelNotFound."""
        name, at, selector = ref.partition("@")
        targets = self.targets(name)
        if not targets or (at and not selector):
            raise ModelNotFound(ref, self._hint(name))
        if _VERSION.fullmatch(selector):
            if int(selector) not in self.versions(name):
                raise ModelNotFound(ref, self._hint(name))
            return name, int(selector)
        version = targets.get(selector or PRODUCTION)
        if version is None:
            raise ModelNotFound(ref, self._hint(name))
        return name, version

    def publish(self, name: str, source: Path, job_id: str) -> int:
        """Make the artifact folder `source` (left as it is) the next version of `name`, and return its number.

        A job publishes once: where a version that this job made is there, its number is returned.
        Raises ValueError for a bad name or an artifact that is incomplete or another job's.
        """
        _check_name(name)
        with self._lock(name):
            done = self.made_by(name, job_id)
            if done is not None:
                return done
            lacking = [file for file in (MANIFEST, WEIGHTS, GOLDEN) if not (source / file).is_file()]
            if lacking:
                raise ValueError(f"the artifact of job {job_id} lacks {', '.join(lacking)}")
            made_by = Manifest.read(source).lineage.job
            if made_by != job_id:
                raise ValueError(f"the artifact was made by job {made_by}, not by {job_id}")
            version = max(self.versions(name), default=0) + 1
            home = self.root / name
            remove_temporary(home)  # of a publisher that was killed; the lock is ours, so nobody writes there
            staged = home / f".{uuid4().hex}.tmp"
            shutil.copytree(source, staged)
            point("catalog.staged")
            publish_dir(staged, home / str(version))
            point("catalog.renamed")
            return version

    def set_alias(self, name: str, alias: str, version: int) -> None:
        """Point an alias to a version. Raises ModelNotFound, and ValueError for an alias that is no name."""
        if not _valid(alias) or alias.isdigit():
            raise ValueError(f"an alias is lower-case letters, digits, . _ - and not a number, not {alias!r}")
        self.folder(name, version)
        with self._lock(name):
            aliases = self.aliases(name)
            if aliases.get(alias) != version:
                write_json(self.root / name / _ALIASES, {**aliases, alias: version})
                point("catalog.aliased")

    def advance_alias(self, name: str, alias: str, version: int) -> None:
        """Point an alias to a version, unless it points to a newer one already: for a version that has just been made.

        Done again, and late, it undoes nothing that has come since. Raises as `set_alias` does.
        """
        if self.aliases(name).get(alias, 0) < version:
            self.set_alias(name, alias, version)

    def sweep(self) -> None:
        """Remove what killed publishers left half copied. Names under which somebody publishes now are left alone."""
        for home in self.root.iterdir() if self.root.is_dir() else ():
            if _valid(home.name) and any(home.glob(".*.tmp")):
                with suppress(BlockingIOError), self._lock(home.name, wait=False):
                    remove_temporary(home)

    def seed(self, starters: Path = STARTERS) -> list[str]:
        """Give a fresh data directory its starter models: each folder becomes version 1 and `production` of its name.

        Names that have a version already are left alone. May be called at every start, and by several processes.
        Returns the names that are new.
        """
        seeded = []
        for source in sorted(each for each in starters.iterdir() if (each / MANIFEST).is_file()):
            name, job_id = source.name, Manifest.read(source).lineage.job
            versions = self.versions(name)
            if not versions:
                self.publish(name, source, job_id)
                seeded.append(name)
            # A start that was killed between the two steps left version 1 without its alias.
            if not self.aliases(name) and self.made_by(name, job_id) == 1:
                self.set_alias(name, PRODUCTION, 1)
        return seeded

    def made_by(self, name: str, job_id: str) -> int | None:
        return next((v for v in self.versions(name) if self.manifest(name, v).lineage.job == job_id), None)

    def _hint(self, name: str) -> str:
        if versions := self.versions(name):
            aliases = ", ".join(f"{alias} → {version}" for alias, version in sorted(self.targets(name).items()))
            return f"{name} has versions {versions[0]} to {versions[-1]}; aliases: {aliases}"
        names = self.names()
        return f"models here: {', '.join(names[:20])}" if names else "there is no model here yet"

    @contextmanager
    def _lock(self, name: str, *, wait: bool = True) -> Iterator[None]:
        """Raises BlockingIOError where somebody has it and nobody waits."""
        home = self.root / name
        home.mkdir(parents=True, exist_ok=True)
        with (home / ".lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield


def _valid(name: str) -> bool:
    try:
        _NAME.validate_python(name)
    except ValidationError:
        return False
    return True


def _check_name(name: str) -> None:
    if not _valid(name):
        raise ValueError(f"a model's name is 1 to 63 lower-case letters, digits, . _ - and not {name!r}")
