"""Aliases of a model: where they point to, who shares their requests, and the way back."""

from collections.abc import Callable, Collection
from typing import Any, TypeVar

import anyio.to_thread

from app.problems import ConflictError, FieldError, InvalidError, PreconditionError, ProblemError, wrong
from app.services.models import not_found
from models.aliases import Alias, Canary, Shadow, etag
from models.catalog import AliasesChanged, Catalog, ModelNotFound, NothingToRollBack
from models.manifest import ModelDamagedError

T = TypeVar("T")


class Aliases:
    """`expected` are ETags that the caller knows: where the aliases are others by now, nothing is changed.

    Nor is it where they have one that is `unexpected`. `ANY` is one of every alias that is there.
    """

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
            return {"model": name, "aliases": shown}, etag(served)

        return await self._run(load)

    async def one(self, name: str, alias: str) -> tuple[dict[str, Any], str]:
        """One of them, and the ETag of all. Raises NotFoundError."""
        found, tag = await self.all(name)
        shown = found["aliases"].get(alias)
        if shown is None:
            hint = f"aliases of {name}: {', '.join(found['aliases'])}"
            raise not_found(ModelNotFound(f"{name}@{alias}", hint))
        return shown, tag

    async def put(
        self,
        name: str,
        alias: str,
        *,
        version: int,
        canary: Canary | None,
        shadow: Shadow | None,
        expected: Collection[str] | None,
        unexpected: Collection[str],
    ) -> tuple[dict[str, Any], str]:
        """Make an alias exactly this. Raises NotFoundError, InvalidError, PreconditionError."""
        others = {"canary": canary, "shadow": shadow}
        for field, other in others.items():
            if other is not None and other.version == version:
                detail = f"The {field} is the version that the alias points to"
                hint = f"Name another version, or leave `{field}` out."
                errors = wrong(f"#/{field}/version", detail)
                raise InvalidError(f"invalid_{field}", f"{detail}.", hint=hint, errors=errors)

        def change() -> tuple[dict[str, Any], str]:
            try:
                made, tag = self._catalog.put_alias(
                    name,
                    alias,
                    version=version,
                    canary=canary,
                    shadow=shadow,
                    expected=expected,
                    unexpected=unexpected,
                )
            except ModelNotFound as error:
                asked = {"version": version}
                asked |= {f"{field}/version": each.version for field, each in others.items() if each is not None}
                named = [field for field, number in asked.items() if error.ref == f"{name}@{number}"]
                if not named:  # it is the model that is not there
                    raise
                errors: list[FieldError] = [{"pointer": f"#/{field}", "detail": str(error)} for field in named]
                raise InvalidError("model_not_found", f"{error}.", hint=error.hint, errors=errors) from error
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
        except ModelDamagedError:
            raise  # a ValueError, too
        except (ModelNotFound, AliasesChanged, NothingToRollBack, ValueError) as error:
            raise _problem(error) from error


def _problem(error: Exception) -> ProblemError:
    match error:
        case ModelNotFound():
            return not_found(error)
        case AliasesChanged():
            return PreconditionError(
                "aliases_changed",
                "The model's aliases are not as If-Match and If-None-Match have it.",
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
    return {"model": name, "alias": alias, **found.model_dump(mode="json")}
