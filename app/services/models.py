"""Models as clients see them: names, versions, aliases."""

from typing import Any

import anyio.to_thread

from app.problems import InvalidError, NotFoundError, wrong
from models.catalog import Catalog, ModelNotFound


class Models:
    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    async def page(self, *, limit: int, after: str | None) -> tuple[list[dict[str, Any]], bool]:
        """Models by name, each in short, and whether there are more."""

        def load() -> tuple[list[dict[str, Any]], bool]:
            names = [name for name in self._catalog.names() if after is None or name > after]
            return [self._summary(name) for name in names[:limit]], len(names) > limit

        return await anyio.to_thread.run_sync(load)

    async def get(self, name: str) -> dict[str, Any]:
        """A model with all its versions, newest first; of `name@3` or `name@alias` that version alone."""

        def load() -> dict[str, Any]:
            base, at, _ = name.partition("@")
            _, chosen = self._catalog.resolve(name)
            versions = [chosen] if at else sorted(self._catalog.versions(base), reverse=True)
            return {**self._summary(base), "versions": [self._version(base, version) for version in versions]}

        try:
            return await anyio.to_thread.run_sync(load)
        except ModelNotFound as error:
            raise not_found(error) from error

    async def set_alias(self, name: str, alias: str, version: int) -> dict[str, Any]:
        try:
            await anyio.to_thread.run_sync(self._catalog.set_alias, name, alias, version)
        except ModelNotFound as error:
            raise not_found(error) from error
        except ValueError as error:
            errors = wrong("/path/alias", str(error))
            hint = "For example `production` or `canary`."
            raise InvalidError("invalid_alias", f"{error}.", hint=hint, errors=errors) from error
        return {"name": name, "alias": alias, "version": version}

    def _summary(self, name: str) -> dict[str, Any]:
        versions = self._catalog.versions(name)
        return {
            "name": name,
            "latest": versions[-1],
            "version_count": len(versions),
            "aliases": self._catalog.targets(name),
        }

    def _version(self, name: str, version: int) -> dict[str, Any]:
        manifest = self._catalog.manifest(name, version)
        aliases = sorted(alias for alias, target in self._catalog.targets(name).items() if target == version)
        return {"version": version, "aliases": aliases, **manifest.model_dump(mode="json", exclude={"format"})}


def not_found(error: ModelNotFound) -> NotFoundError:
    return NotFoundError("model_not_found", f"{error}.", hint=error.hint)
