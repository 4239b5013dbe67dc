"""Which engines there are: the default model's, those that clients asked for, and those that an alias moved to."""

import asyncio
import logging
from collections import defaultdict
from contextlib import suppress

from app.fleet.engine import Engine
from app.fleet.plan import Key, plan, victim
from app.inference.routes import EngineState, Route, Routes
from models.catalog import PRODUCTION, Catalog, ModelNotFound
from store.layout import Layout
from store.settings import Settings

log = logging.getLogger(__name__)

_ALIAS_POLL = 0.5  # seconds between looks at the models' folders
_STOP_SECONDS = 9.0


class NoRoom(Exception):
    """As many models are loaded as may be, and none of them can go."""


class Fleet:
    """Keeps the engines as the catalog and the clients want them, and the routing table as the engines are."""

    def __init__(self, layout: Layout, settings: Settings) -> None:
        self._layout = layout
        self._settings = settings
        self._catalog = Catalog(layout.models)
        self._default, _, self._default_selector = settings.model.partition("@")
        self._engines: dict[Key, Engine] = {}
        self._leaving: dict[Engine, asyncio.Task[None]] = {}
        self._requested: set[Key] = set()
        self._serving: dict[str, dict[str, int]] = {}
        self._written: Routes | None = None
        self._folders: dict[str, int] = {}
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Reconcile after every change, until cancelled."""
        while True:
            self._changed.clear()
            self._reconcile()
            while not self._changed.is_set() and not self._folders_changed():
                with suppress(TimeoutError):
                    async with asyncio.timeout(_ALIAS_POLL):
                        await self._changed.wait()

    async def ensure(self, model: str, version: int) -> Route:
        """The version's engine once it is ready or has failed. Raises ModelNotFound and NoRoom."""
        key = (model, version)
        if key not in self._engines:
            self._catalog.folder(model, version)
            self._make_room()
            if version not in self._serving.get(model, self._targets(model)).values():
                self._requested.add(key)
            self._start(key)
            self._reconcile()
        return await self._engines[key].settle()

    async def stop(self) -> None:
        engines = [*self._engines.values()]
        for task in self._leaving.values():
            task.cancel()
        await asyncio.gather(*self._leaving.values(), return_exceptions=True)
        await asyncio.gather(*(each.stop(seconds=_STOP_SECONDS) for each in (*engines, *self._leaving)))
        self._layout.routes.unlink(missing_ok=True)

    def _reconcile(self) -> None:
        """Bring engines and routes in line with the catalog. Idempotent."""
        by_name: dict[str, set[int]] = defaultdict(set)
        for name, version in self._engines:
            by_name[name].add(version)
        for name in {self._default, *by_name}:
            loaded = by_name[name]
            targets = self._targets(name)
            decided = plan(
                targets=targets,
                serving=self._serving.get(name, {}),
                loaded=loaded,
                ready={v for v in loaded if self._engines[name, v].state is EngineState.READY},
                requested={v for n, v in self._requested if n == name},
            )
            self._serving[name] = decided.serving
            keep = decided.keep | (self._pinned() if name == self._default else set())
            for version in keep - loaded:
                self._start((name, version))
            for version in loaded - keep:
                self._drain((name, version))
        self._write()

    def _pinned(self) -> set[int]:
        """Versions of the default model that stay loaded: what it serves and what it is about to serve."""
        if self._default_selector.isdigit():
            return {int(self._default_selector)}
        alias = self._default_selector or PRODUCTION
        both = (self._serving.get(self._default, {}), self._targets(self._default))
        return {where[alias] for where in both if alias in where}

    def _targets(self, name: str) -> dict[str, int]:
        """Where the aliases of a model point to; where that cannot be read, all stays as it is."""
        try:
            return self._catalog.targets(name)
        except (OSError, ValueError):
            log.exception("the aliases of a model cannot be read", extra={"model": name})
            return self._serving.get(name, {})

    def _start(self, key: Key) -> None:
        model, version = key
        try:
            folder = self._catalog.folder(model, version)
        except ModelNotFound as error:
            log.warning("a version that is wanted is gone", extra={"ref": error.ref, "hint": error.hint})
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
        self._leaving[engine] = asyncio.create_task(self._see_off(engine))
        log.info("an engine leaves", extra={"model": key[0], "version": key[1]})

    async def _see_off(self, engine: Engine) -> None:
        await engine.drain()
        del self._leaving[engine]
        self._changed.set()

    def _make_room(self) -> None:
        while len(self._engines) >= self._settings.max_engines:
            kept = {(self._default, version) for version in self._pinned()}
            going = victim({key: engine.idle_seconds for key, engine in self._engines.items()}, kept=kept)
            if going is None:
                raise NoRoom(f"{len(self._engines)} models are loaded, as many as RESNETD_MAX_ENGINES allows")
            self._drain(going)

    def _write(self) -> None:
        """Routes as they are; an alias of a model without any engine is not in them: the catalog tells it."""
        loaded = {name for name, _ in self._engines}
        engines = (*self._engines.values(), *self._leaving)
        routes = Routes(
            engines=tuple(engine.route for engine in engines),
            aliases={name: serving for name, serving in self._serving.items() if name in loaded},
        )
        self._serving = dict(routes.aliases)
        if routes != self._written:
            routes.write(self._layout.routes)
            self._written = routes

    def _folders_changed(self) -> bool:
        """Whether a version or an alias appeared: both come by a rename, which changes their folder's time."""
        now = {}
        for name in {self._default, *(name for name, _ in self._engines)}:
            try:
                now[name] = (self._layout.models / name).stat().st_mtime_ns
            except FileNotFoundError:
                now[name] = 0
        changed, self._folders = now != self._folders, now
        return changed
