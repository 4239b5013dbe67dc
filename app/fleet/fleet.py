"""Which engines there are: the default model's, those that clients asked for, and those that an alias moved to."""

import asyncio
import logging
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from contextlib import suppress
from functools import partial

from app.fleet.engine import Engine
from app.fleet.plan import Key, plan, victim
from app.fleet.proven import Proven
from app.inference.routes import EngineState, Route, Routes, Split
from models.aliases import Alias
from models.catalog import PRODUCTION, Catalog, ModelNotFound
from store.layout import Layout
from store.settings import Settings

log = logging.getLogger(__name__)

_ALIAS_POLL = 0.5  # seconds between looks at the models' folders
_ROOM_POLL = 0.1  # seconds between looks whether an engine may go by now
_STOP_SECONDS = 9.0  # at most; whoever stops a server in less has less RESNETD_DRAIN_SECONDS


class NoRoom(Exception):
    """As many models are loaded as may be, and all of them are needed."""


class Needed(Exception):
    """A version that cannot be unloaded now, and why."""


class Fleet:
    """Keeps the engines as the catalog and the clients want them, and the routing table as the engines are."""

    def __init__(self, layout: Layout, settings: Settings) -> None:
        self._layout = layout
        self._settings = settings
        self._catalog = Catalog(layout.models)
        self._default, _, self._default_selector = settings.model.partition("@")
        self._engines: dict[Key, Engine] = {}
        self._leaving: dict[Engine, asyncio.Task[None]] = {}  # each with who sees it off
        self._requested: set[Key] = set()  # asked for by number: they stay, whatever the aliases do
        self._known: dict[str, dict[str, Alias]] = {}  # a model's aliases, as they were read last
        self._unread: set[str] = set()  # models whose aliases could not be read this time
        self.proven = Proven(layout.served)
        self._serving = {name: self.proven.of(name) for name in self.proven.models()}  # `Plan.serving` of each model
        self._splits: dict[str, dict[str, Split]] = {}  # `Plan.splits` of each
        self._held: dict[str, frozenset[int]] = {}  # `Plan.held` of each
        self._written: Routes | None = None  # None until this fleet has written its first table
        self._refused: OSError | None = None  # what the disk said to the last try
        self._folders: dict[str, int] = {}  # when each model's folder changed last, as st_mtime_ns
        self._changed = asyncio.Event()  # an engine did, so that there is something to reconcile

    async def run(self) -> None:
        """Reconcile after every change, and again where the disk refused, until cancelled."""
        while True:
            self._changed.clear()
            self._reconcile()
            while not self._changed.is_set() and not self._folders_changed():
                with suppress(TimeoutError):
                    async with asyncio.timeout(_ALIAS_POLL):
                        await self._changed.wait()
                if self._refused is not None or not self._layout.routes.exists():
                    break

    async def ensure(self, model: str, version: int, *, keep: bool = False) -> Route:
        """The version's engine once it is ready or has failed. Raises ModelNotFound and NoRoom.

        Where all that could make room for it are being loaded for somebody else, it waits for one of them to be used.
        `keep`: the next fleet is to load it, too, unless it was unloaded, or made room for another.
        """
        key = (model, version)
        while key not in self._engines:
            self._catalog.folder(model, version)  # each time: nobody keeps a version that waits from being deleted
            if self._make_room():
                break
            await asyncio.sleep(_ROOM_POLL)  # time alone may let an engine go
        if key not in self._engines:
            if version not in self._serving.get(model, self._targets(model)).values():
                self._requested.add(key)
            self._start(key)
            self._reconcile()
        engine = self._engines.get(key)
        if engine is None:
            raise ModelNotFound(f"{model}@{version}", "it was deleted just now")
        route = await engine.settle()
        if keep and route.state is EngineState.READY and key in self._engines:
            self.proven.loaded.add(key)
        self._reconcile()  # whoever is told finds it in the table too
        return route

    async def unload(self, model: str, version: int) -> None:
        """End the version's engine, once it has answered what it holds; a request for the version loads it again.

        Raises Needed where it would be loaded again without one.
        """
        key = (model, version)
        if model == self._default and version in self._pinned():
            raise Needed(f"{model} is the model that this server serves by default")
        if key in self._engines:
            if version in self._held.get(model, ()):
                raise Needed("an alias that is in use goes to it, or shares its requests with it")
            self._drain(key)
            self._reconcile()
        self.proven.loaded.discard(key)
        leaving = [task for engine, task in self._leaving.items() if (engine.model, engine.version) == key]
        await asyncio.gather(*(asyncio.shield(task) for task in leaving))
        self._reconcile()

    def fits(self, key: Key) -> bool:
        """Whether a version is loaded, or can be without another that leaves."""
        return key in self._engines or len(self._engines) < self._settings.max_engines

    async def settled(self) -> None:
        """Wait until every engine is ready or has failed."""
        await asyncio.gather(*(engine.settle() for engine in self._engines.values()))

    async def stop(self) -> None:
        engines = [*self._engines.values()]
        for task in self._leaving.values():
            task.cancel()
        await asyncio.gather(*self._leaving.values(), return_exceptions=True)
        seconds = min(_STOP_SECONDS, self._settings.drain_seconds)
        await asyncio.gather(*(each.stop(seconds=seconds) for each in (*engines, *self._leaving)))
        self._layout.routes.unlink(missing_ok=True)

    def _reconcile(self) -> None:
        """Bring engines and routes in line with the catalog. Idempotent.

        What the disk refuses, being full, is logged once and tried again by `run`: engines that serve go on.
        """
        refused = None
        following = [partial(self._follow, name) for name in self._watched()]
        steps: list[Callable[[], None]] = [*following, self.proven.write, self._write]
        for step in steps:
            try:
                step()
            except OSError as error:
                refused = error
        if refused is not None and self._refused is None:
            reason = refused.strerror or str(refused)
            log.error("the disk refuses; engines serve on, and it is tried again", extra={"reason": reason})
        elif refused is None and self._refused is not None:
            log.info("the disk refuses nothing any more")
        self._refused = refused

    def _watched(self) -> set[str]:
        """The models whose aliases the fleet follows: those that are loaded, and those in the routing table."""
        return {self._default, *(name for name, _ in self._engines), *self._serving}

    def _follow(self, name: str) -> None:
        """Bring a model's engines in line with its aliases. Raises OSError where its files cannot be read."""
        loaded = {version for each, version in self._engines if each == name}
        ready = {version for version in loaded if self._engines[name, version].state is EngineState.READY}
        aliases = self._aliases(name)
        splits = {alias: _split(each) for alias, each in aliases.items()}
        there = self._catalog.versions(name)
        proven = {alias: v for alias, v in self.proven.of(name).items() if alias in aliases and v in there}
        decided = plan(
            targets={alias: each.version for alias, each in aliases.items()},
            serving=self._serving.get(name, {}),
            loaded=loaded,
            ready=ready,
            requested={v for n, v in self._requested if n == name},
            splits=splits,
            proven=proven,
            failed={version for version in loaded if self._engines[name, version].state is EngineState.FAILED},
        )
        self._serving[name], self._splits[name], self._held[name] = decided.serving, decided.splits, decided.held
        if name not in self._unread:  # else an alias that nobody can read would be taken for one that is gone
            self.proven.note(name, proven | {alias: v for alias, v in decided.serving.items() if v in ready})
        keep = decided.keep | (self._pinned() if name == self._default else set())
        for version in loaded - keep:
            if (name, version) in self.proven.loaded:  # by the name of an alias, which has moved
                self.proven.loaded |= {(name, v) for v in decided.serving.values() if v in ready}
            self._drain((name, version))
        for version in keep - loaded:
            if any(version in each.versions() for each in splits.values()):
                with suppress(NoRoom):  # it was asked for by name, and is to stay
                    self._make_room(keep={(name, each) for each in keep})
            self._start((name, version))

    def _pinned(self) -> set[int]:
        """Versions of the default model that stay loaded: what it serves and what it is about to serve."""
        if self._default_selector.isdigit():
            return {int(self._default_selector)}
        alias = self._default_selector or PRODUCTION
        both = (self._serving.get(self._default, {}), self._targets(self._default))
        return {where[alias] for where in both if alias in where}

    def _targets(self, name: str) -> dict[str, int]:
        return {alias: each.version for alias, each in self._aliases(name).items()}

    def _aliases(self, name: str) -> dict[str, Alias]:
        """The aliases of a model; where they cannot be read, those that were read last."""
        try:
            self._known[name] = self._catalog.served(name)
            self._unread.discard(name)
        except (OSError, ValueError):
            if name not in self._unread:
                log.exception("the aliases of a model cannot be read", extra={"model": name})
            self._unread.add(name)
        return self._known.get(name, {})

    def _start(self, key: Key) -> None:
        model, version = key
        try:
            folder = self._catalog.folder(model, version)
        except ModelNotFound as error:
            log.warning("a version that is wanted is gone", extra={"ref": error.ref, "hint": error.hint})
            self._requested.discard(key)
            return
        self._engines[key] = Engine(
            model=model,
            version=version,
            folder=folder,
            run=self._layout.run,
            device=self._settings.device,
            on_change=self._changed.set,
        )

    def _drain(self, key: Key) -> None:
        engine = self._engines.pop(key)
        self._requested.discard(key)
        self.proven.loaded.discard(key)
        self._leaving[engine] = asyncio.create_task(self._see_off(engine))
        log.info("an engine leaves", extra={"model": key[0], "version": key[1]})

    async def _see_off(self, engine: Engine) -> None:
        await engine.drain()
        del self._leaving[engine]
        self._changed.set()

    def _make_room(self, *, keep: AbstractSet[Key] = frozenset()) -> bool:
        """Whether there is room for one more, for which engines may leave, but none of `keep`; False: not yet.

        Raises NoRoom.
        """
        while len(self._engines) >= self._settings.max_engines:
            kept = keep | {(self._default, version) for version in self._pinned()}
            kept |= {(name, version) for name, versions in self._held.items() for version in versions}
            if kept >= self._engines.keys():
                raise NoRoom(f"{len(self._engines)} models are loaded, as many as RESNETD_MAX_ENGINES allows")
            may_go = {key: engine.idle_seconds for key, engine in self._engines.items() if engine.may_go}
            going = victim(may_go, kept=kept)
            if going is None:
                return False
            self._drain(going)
        return True

    def _write(self) -> None:
        """Routes as they are. The aliases of a model without any engine are told by the catalog; they are in the routes
        only where one goes on serving another version than it points to.
        """
        loaded = {name for name, _ in self._engines}
        engines = (*self._engines.values(), *self._leaving)
        routes = Routes(
            engines=tuple(engine.route for engine in engines),
            aliases={name: serving for name, serving in self._serving.items() if name in loaded or self._lags(name)},
            splits={name: splits for name, splits in self._splits.items() if name in loaded and splits},
        )
        self._serving = dict(routes.aliases)
        if routes != self._written or not self._layout.routes.exists():  # whoever tidies /tmp may have removed it
            try:
                routes.write(self._layout.routes)
            except OSError:
                if self._written is None:  # it is another fleet's, of which an engine may have had the same socket
                    self._layout.routes.unlink(missing_ok=True)
                raise
            self._written = routes

    def _lags(self, name: str) -> bool:
        """Whether an alias serves another version than it points to, as far as is known."""
        known = self._known.get(name, {})
        return any(alias not in known or known[alias].version != v for alias, v in self._serving[name].items())

    def _folders_changed(self) -> bool:
        """Whether a version or an alias appeared: both come by a rename, which changes their folder's time."""
        now = {}
        for name in self._watched():
            try:
                now[name] = (self._layout.models / name).stat().st_mtime_ns
            except OSError:
                now[name] = 0
        changed, self._folders = now != self._folders, now
        return changed


def _split(alias: Alias) -> Split:
    return Split(
        canary=alias.canary.version if alias.canary else None,
        percent=alias.canary.percent if alias.canary else 0.0,
        shadow=alias.shadow.version if alias.shadow else None,
    )
