"""Models as clients see them: names, versions, what is loaded; and loading and unloading."""

import asyncio
from contextlib import suppress
from functools import partial
from typing import Any

import anyio.to_thread

from app.inference.fleet import FleetClient
from app.inference.routes import EngineState, Route
from app.problems import ConflictError, NotFoundError, UnavailableError
from models.catalog import Catalog, ModelNotFound
from models.manifest import ModelDamagedError

LOAD_SECONDS = 60.0  # for which a request to load waits by itself


class Models:
    def __init__(self, catalog: Catalog, fleet: FleetClient) -> None:
        self._catalog = catalog
        self._fleet = fleet
        self._loading: dict[tuple[str, int], asyncio.Task[dict[str, Any]]] = {}

    async def page(self, *, limit: int, after: str | None) -> tuple[list[dict[str, Any]], bool]:
        """Models by name, each in short, but for those whose aliases cannot be read; and whether there are more."""

        def load() -> tuple[list[dict[str, Any]], bool]:
            names = [name for name in self._catalog.names() if after is None or name > after]
            found = []
            for name in names[:limit]:
                with suppress(ModelDamagedError):  # it says so itself, and hides no other
                    found.append(self._summary(name))
            return [each for each in found if each is not None], len(names) > limit

        return await anyio.to_thread.run_sync(load)

    async def get(self, name: str) -> dict[str, Any]:
        """A model with all its versions that can be read, newest first; of `name@3` or `name@alias` that version alone.

        Raises NotFoundError, and ModelDamagedError where that version cannot be read.
        """

        def load() -> dict[str, Any]:
            base, at, _ = name.partition("@")
            _, chosen = self._catalog.resolve(name)
            versions = [self._version(base, chosen)] if at else self._versions(base)
            summary = self._summary(base)
            if summary is None:
                raise ModelNotFound(name, "it has just been deleted")
            loaded = [_loaded(route) for route in self._fleet.engines(base) if not at or route.version == chosen]
            return {**summary, "versions": versions, "loaded": loaded}

        try:
            return await anyio.to_thread.run_sync(load)
        except ModelNotFound as error:
            raise not_found(error) from error

    async def load(self, ref: str, *, wait: float = LOAD_SECONDS) -> dict[str, Any]:
        """Load a version; once it is ready, at the latest after `wait` seconds, how far it is.

        Loading goes on when nobody waits for it any more. Raises NotFoundError, ConflictError where it cannot be
        loaded, UnavailableError where nobody loads models.
        """
        name, version = await self.resolve(ref)
        loading = self._asked_for(name, version)
        await asyncio.wait({loading}, timeout=wait)
        try:
            reply = loading.result() if loading.done() else {"state": EngineState.STARTING}
        except (OSError, ValueError) as error:
            raise _no_fleet() from error
        if reply["state"] == EngineState.FAILED:
            raise ConflictError(
                "model_not_loadable",
                f"{name}@{version} cannot be loaded: {reply['reason']}.",
                hint="Damaged files have to be made again; RESNETD_MAX_ENGINES bounds how many load.",
            )
        told = {each: reply.get(each) for each in ("state", "device", "reason", "runtime")}
        return {"model": name, "version": version, **told}

    async def unload(self, ref: str) -> dict[str, Any]:
        """End a version's engine; its memory is free when this returns. Raises as `load`."""
        name, version = await self.resolve(ref)
        try:
            reply = await self._fleet.unload(name, version)
        except (OSError, ValueError) as error:
            raise _no_fleet() from error
        if reply["state"] == "needed":
            raise ConflictError(
                "model_in_use",
                f"{name}@{version} stays loaded: {reply['reason']}.",
                hint=f"Point the alias elsewhere first: PUT /v1/models/{name}/aliases/…",
            )
        return {"model": name, "version": version, "state": "unloaded", "device": None, "reason": None, "runtime": None}

    async def resolve(self, ref: str) -> tuple[str, int]:
        """Raises NotFoundError."""
        try:
            return await anyio.to_thread.run_sync(self._catalog.resolve, ref)
        except ModelNotFound as error:
            raise not_found(error) from error

    def _asked_for(self, name: str, version: int) -> "asyncio.Task[dict[str, Any]]":
        """The fleet's answer, which all who ask for this version meanwhile share, and which comes without them, too."""
        key = (name, version)
        found = self._loading.get(key)
        if found is None:
            found = self._loading[key] = asyncio.create_task(self._fleet.load(name, version), name="load")
            found.add_done_callback(partial(self._answered, key))
        return found

    def _answered(self, key: tuple[str, int], loading: "asyncio.Task[dict[str, Any]]") -> None:
        del self._loading[key]
        if not loading.cancelled():
            loading.exception()  # seen, also where nobody waits for it any more

    def _summary(self, name: str) -> dict[str, Any] | None:
        versions = self._catalog.versions(name)
        if not versions:
            return None
        return {
            "name": name,
            "latest": versions[-1],
            "version_count": len(versions),
            "aliases": self._catalog.targets(name),
        }

    def _versions(self, name: str) -> list[dict[str, Any]]:
        """One version that is damaged, or just being deleted, hides no other."""
        found = []
        for version in sorted(self._catalog.versions(name), reverse=True):
            with suppress(ModelNotFound, ModelDamagedError):
                found.append(self._version(name, version))
        return found

    def _version(self, name: str, version: int) -> dict[str, Any]:
        manifest = self._catalog.manifest(name, version)
        aliases = sorted(alias for alias, target in self._catalog.targets(name).items() if target == version)
        return {"version": version, "aliases": aliases, **manifest.model_dump(mode="json", exclude={"format"})}


def not_found(error: ModelNotFound) -> NotFoundError:
    return NotFoundError("model_not_found", f"{error}.", hint=error.hint)


def damaged(error: ModelDamagedError) -> ConflictError:
    hint = "Put its files back from a copy, or delete the version: DELETE /v1/models/{name}/versions/{version}"
    return ConflictError("model_damaged", f"{error}.", hint=hint)


def _loaded(route: Route) -> dict[str, Any]:
    return {name: getattr(route, name) for name in ("version", "state", "device", "reason", "runtime")}


def _no_fleet() -> UnavailableError:
    return UnavailableError(
        "engine_unavailable", "The process that loads models does not answer.", hint="/readyz says more."
    )
