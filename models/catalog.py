"""Models on disk: immutable numbered versions, and aliases that point to one of them.

A version appears whole, by rename, and never changes. Writers of one name take turns by a lock on a file (flock), so
that several processes may publish at once; readers need no lock.
"""

import fcntl
import re
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from pydantic import TypeAdapter, ValidationError

from models.aliases import Alias, Aliases, Canary, Shadow, etag
from models.manifest import GOLDEN, MANIFEST, WEIGHTS, Manifest, ModelDamagedError, Name
from store.faults import point
from store.files import copy_tree, fsync_dir, make_dir, publish_dir, remove_temporary, remove_tree

PRODUCTION = "production"
STARTERS = Path(__file__).parent / "starters"  # the models that come with this project
_NAME: TypeAdapter[str] = TypeAdapter(Name)
_VERSION = re.compile(r"[1-9][0-9]{0,8}")
ANY = '"*"'  # among etags: whatever they are, where the alias is there. No etag has a quotation mark in it.


class ModelNotFound(LookupError):
    """No such model, version or alias. `hint` says what there is."""

    def __init__(self, ref: str, hint: str) -> None:
        super().__init__(f"there is no model {ref!r}")
        self.ref = ref
        self.hint = hint


class AliasesChanged(Exception):
    """The aliases are not as the caller has it."""


class NothingToRollBack(LookupError):
    """The alias has pointed to nothing else that is still there."""


class VersionInUse(Exception):
    """A version that is needed cannot be deleted. `by` says who needs it."""

    def __init__(self, by: str) -> None:
        super().__init__(by)
        self.by = by


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
        return {alias: each.version for alias, each in self._document(name).aliases.items()}

    def targets(self, name: str) -> dict[str, int]:
        """The aliases of a model as they serve: `production`, where nobody set it, is the newest version."""
        return {alias: each.version for alias, each in self.served(name).items()}

    def served(self, name: str) -> dict[str, Alias]:
        """As `targets`, with canaries, shadows and histories."""
        versions = self.versions(name)
        if not versions:
            return {}
        return {PRODUCTION: Alias(version=versions[-1]), **self._document(name).aliases}

    def etag(self, name: str) -> str:
        """A digest of the model's aliases: it differs once anybody has changed one."""
        return etag(self.served(name))

    def _document(self, name: str) -> Aliases:
        return Aliases.read(self.root / name) if _valid(name) else Aliases()

    def folder(self, name: str, version: int) -> Path:
        """Where a version lies. Raises ModelNotFound."""
        if version not in self.versions(name):
            raise ModelNotFound(f"{name}@{version}", self._hint(name))
        return self.root / name / str(version)

    def manifest(self, name: str, version: int) -> Manifest:
        """A version's model.json. Read once: versions never change. Raises ModelNotFound and ModelDamagedError."""
        found = self._manifests.get((name, version))
        if found is None:
            try:
                found = self._manifests[name, version] = Manifest.read(self.folder(name, version))
            except FileNotFoundError as error:  # it has just been deleted
                raise ModelNotFound(f"{name}@{version}", self._hint(name)) from error
            except ValidationError as error:
                why = error.errors(include_url=False)[0]["msg"]
                raise ModelDamagedError(f"the {MANIFEST} of {name}@{version} is damaged: {why}") from error
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
            version = max(*self.versions(name), self._document(name).highest, 0) + 1
            home = self.root / name
            remove_temporary(home)  # of a publisher that was killed; the lock is ours, so nobody writes there
            staged = home / f".{uuid4().hex}.tmp"
            try:
                copy_tree(source, staged)
                point("catalog.staged")
                publish_dir(staged, home / str(version))
            except BaseException:
                remove_tree(staged)
                raise
            point("catalog.renamed")
            return version

    def set_alias(self, name: str, alias: str, version: int) -> None:
        """Point an alias to a version, without canary or shadow. Raises ModelNotFound and ValueError as `put_alias`."""
        self.put_alias(name, alias, version=version)

    def put_alias(
        self,
        name: str,
        alias: str,
        *,
        version: int,
        canary: Canary | None = None,
        shadow: Shadow | None = None,
        expected: Collection[str] | None = None,
        unexpected: Collection[str] = (),
    ) -> tuple[Alias, str]:
        """Make an alias exactly this: the alias, and the etag that the aliases have by it.

        Raises ModelNotFound for a version that is not there, AliasesChanged where their etag was none of `expected` or
        one of `unexpected` (`ANY` is one of each alias that is there), and ValueError for an alias that is no name.
        """
        _check_alias(alias)
        with self._changing(name, expected, unexpected, alias) as document:
            before = document.aliases.get(alias)
            wanted = _moved(before, version=version, canary=canary, shadow=shadow)
            for each in sorted(wanted.versions()):
                self.folder(name, each)
            if wanted != before:
                self._write(name, document.put(alias, wanted))
            return wanted, self.etag(name)

    def roll_back(self, name: str, alias: str, *, expected: Collection[str] | None = None) -> tuple[Alias, str]:
        """Point an alias to what it pointed to before, without canary or shadow; like `put_alias`.

        Raises ModelNotFound, NothingToRollBack, and AliasesChanged as `put_alias`.
        """
        with self._changing(name, expected) as document:
            found = self._known(name, alias)
            target = found.previous(set(self.versions(name)))
            if target is None:
                raise NothingToRollBack
            wanted = found.moved(version=target, canary=None, shadow=None, at=datetime.now(UTC), by="rollback")
            self._write(name, document.put(alias, wanted))
            return wanted, self.etag(name)

    def delete_alias(self, name: str, alias: str, *, expected: Collection[str] | None = None) -> None:
        """Raises ModelNotFound, also for a `production` that nobody set, and AliasesChanged as `put_alias`."""
        with self._changing(name, expected) as document:
            if alias not in document.aliases:
                raise ModelNotFound(f"{name}@{alias}", self._hint(name))
            self._write(name, document.without(alias))

    def advance_alias(self, name: str, alias: str, version: int) -> None:
        """Point an alias to a version, unless it points to a newer one already: for a version that has just been made.

        Done again, and late, it undoes nothing that has come since. Raises as `set_alias` does.
        """
        _check_alias(alias)
        with self._changing(name, None) as document:
            found = document.aliases.get(alias)
            if found is None or max(found.version, *(past.version for past in found.history), 0) < version:
                self.folder(name, version)
                self._write(name, document.put(alias, _moved(found, version=version, canary=None, shadow=None)))

    def delete(self, name: str, version: int, *, used: Callable[[], str | None] = lambda: None) -> None:
        """Remove a version for good; its number is never given again. Raises ModelNotFound and VersionInUse.

        Refused while an alias needs it (a `production` that nobody set needs the newest, unless that is the last), or
        while `used()` says who uses it: asked before, and again when nobody can find the version any more.
        """
        self.folder(name, version)
        with self._lock(name):
            home, there = self.root / name, self.folder(name, version)
            document, versions = self._document(name), self.versions(name)
            needed = document.aliases if len(versions) == 1 else self.served(name)
            users = sorted(alias for alias, each in needed.items() if version in each.versions())
            if users:
                raise VersionInUse(f"alias {users[0]} needs it")
            if document.highest < versions[-1]:
                self._write(name, document.model_copy(update={"highest": versions[-1]}))
            if (user := used()) is not None:
                raise VersionInUse(user)
            hidden = home / f".{version}.{uuid4().hex}.tmp"  # killed from here on, the next publisher removes it
            there.rename(hidden)
            if (user := used()) is not None:  # who found it a moment ago
                hidden.rename(there)
                raise VersionInUse(user)
            fsync_dir(home)
            shutil.rmtree(hidden)
            self._manifests.pop((name, version), None)

    def _known(self, name: str, alias: str) -> Alias:
        found = self.served(name).get(alias)
        if found is None:
            raise ModelNotFound(f"{name}@{alias}", self._hint(name))
        return found

    def _write(self, name: str, document: Aliases) -> None:
        document.write(self.root / name)
        point("catalog.aliased")

    @contextmanager
    def _changing(
        self, name: str, expected: Collection[str] | None, unexpected: Collection[str] = (), alias: str = PRODUCTION
    ) -> Iterator[Aliases]:
        """The aliases of a model, which nobody else changes meanwhile. Raises ModelNotFound and AliasesChanged."""
        if not self.versions(name):
            raise ModelNotFound(name, self._hint(name))
        with self._lock(name):
            served = self.served(name)
            tags = {etag(served), ANY} if alias in served else {etag(served)}
            if (expected is not None and tags.isdisjoint(expected)) or not tags.isdisjoint(unexpected):
                raise AliasesChanged
            yield self._document(name)

    def sweep(self) -> None:
        """Remove what killed publishers left half copied. Names under which somebody publishes now are left alone."""
        for home in self.root.iterdir() if self.root.is_dir() else ():
            if _valid(home.name) and any(home.glob(".*.tmp")):
                with suppress(BlockingIOError), self._lock(home.name, wait=False):
                    remove_temporary(home)

    def seed(self, starters: Path = STARTERS) -> list[str]:
        """Give a fresh data directory its starter models: each folder becomes version 1 and `production` of its name.

        Names that have a version, or had one that was deleted, are left alone. May be called at every start, and by
        several processes. Returns the names that are new.
        """
        seeded = []
        for source in sorted(each for each in starters.iterdir() if (each / MANIFEST).is_file()):
            name, job_id = source.name, Manifest.read(source).lineage.job
            if not self.versions(name) and not self._document(name).highest:
                self.publish(name, source, job_id)
                seeded.append(name)
            # A start that was killed between the two steps left version 1 without its alias.
            if not self.aliases(name) and self.made_by(name, job_id) == 1:
                self.set_alias(name, PRODUCTION, 1)
        return seeded

    def made_by(self, name: str, job_id: str) -> int | None:
        """The version that came of a job; None where none did that is there and can be read."""
        for version in self.versions(name):
            with suppress(ModelNotFound, ModelDamagedError):
                if self.manifest(name, version).lineage.job == job_id:
                    return version
        return None

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
        make_dir(home)
        with (home / ".lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield


def _valid(name: str) -> bool:
    try:
        _NAME.validate_python(name)
    except ValidationError:
        return False
    return True


def _moved(before: Alias | None, *, version: int, canary: Canary | None, shadow: Shadow | None) -> Alias:
    now = datetime.now(UTC)
    if before is None:
        return Alias(version=version, canary=canary, shadow=shadow, since=now)
    return before.moved(version=version, canary=canary, shadow=shadow, at=now, by="set")


def _check_alias(alias: str) -> None:
    if not _valid(alias) or alias.isdigit():
        raise ValueError(f"an alias is lower-case letters, digits, . _ - and not a number, not {alias!r}")


def _check_name(name: str) -> None:
    if not _valid(name):
        raise ValueError(f"a model's name is 1 to 63 lower-case letters, digits, . _ - and not {name!r}")
