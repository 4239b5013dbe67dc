"""Aliases of a model: where they point to, who shares their requests, and the way back."""

from collections.abc import Callable, Collection
from typing import Any, TypeVar

import anyio.to_thread

from app.problems import ConflictError, InvalidError, PreconditionError, ProblemError, wrong
from app.services.models import not_found
from models.aliases import Alias, Canary, Shadow, etag
from models.catalog import AliasesChanged, Catalog, ModelNotFound, NothingToRollBack

T = TypeVar("T")


class Aliases:
    """`expected` are ETags that the caller knows: where the aliases are others by now, nothing is changed."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    async def all(self, name: str) -> tuple[dict[str, Any], str]:
        """The aliases of a model with their histories, and their ETag. Raises NotFoundError."""

        def load() -> tuple[dict[str, Any], str]:
            if "@" in name:
                raise ModelNotFound(name, "Aliases are a model's: leave out what stands behind its name.")
            self._catalog.resolve(name)
            served = self._catalog.served(name)
            shown = {alias: _shown(name, alias, each) for alias, each in sorted(served.items())}
            return {"name": name, "aliases": shown}, etag(served)

        return await self._run(load)

    async def put(
        self,
        name: str,
        alias: str,
        *,
        version: int,
        canary: Canary | None,
        shadow: Shadow | None,
        expected: Collection[str] | None,
    ) -> tuple[dict[str, Any], str]:
        """Make an alias exactly this. Raises NotFoundError, InvalidError, PreconditionError."""
        for field, other in (("canary", canary), ("shadow", shadow)):
            if other is not None and other.version == version:
                detail = f"The {field} is the version that the alias points to"
                hint = f"Name another version, or leave `{field}` out."
                errors = wrong(f"#/{field}/version", detail)
                raise InvalidError(f"invalid_{field}", f"{detail}.", hint=hint, errors=errors)

        def change() -> tuple[dict[str, Any], str]:
            made, tag = self._catalog.put_alias(
                name, alias, version=version, canary=canary, shadow=shadow, expected=expected
            )
            return _shown(name, alias, made), tag

        return await self._run(change)

    async def roll_back(self, name: str, alias: str, *, expected: Collection[str] | None) -> tuple[dict[str, Any], str]:
        """Raises NotFoundError, ConflictError where there is no way back, PreconditionError."""

        def change() -> tuple[dict[str, Any], str]:
            made, tag = self._catalog.roll_back(name, alias, expected=expected)
            return _shown(name, alias, made), tag

        return await self._run(change)

    async def delete(self, name: str, alias: str, *, expected: Collection[str] | None) -> None:
        """Raises NotFoundError, PreconditionError."""
        await self._run(lambda: self._catalog.delete_alias(name, alias, expected=expected))

    async def _run(self, call: Callable[[], T]) -> T:
        try:
            return await anyio.to_thread.run_sync(call)
        except (ModelNotFound, AliasesChanged, NothingToRollBack, ValueError) as error:
            raise _problem(error) from error


def _problem(error: Exception) -> ProblemError:
    match error:
        case ModelNotFound():
            return not_found(error)
        case AliasesChanged():
            return PreconditionError(
                "aliases_changed",
                "The model's aliases are no longer those of If-Match.",
                hint="GET /v1/models/{name}/aliases tells them and their ETag.",
            )
        case NothingToRollBack():
            return ConflictError(
                "nothing_to_roll_back",
                "The alias has pointed to no other version that is still there.",
                hint="PUT points it to any version.",
            )
        case _:
            hint = "For example `production` or `canary`."
            return InvalidError("invalid_alias", f"{error}.", hint=hint, errors=wrong("/path/alias", str(error)))


def _shown(name: str, alias: str, found: Alias) -> dict[str, Any]:
    return {"name": name, "alias": alias, **found.model_dump(mode="json")}
