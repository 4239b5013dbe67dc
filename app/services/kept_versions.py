"""Model versions that jobs need: they are not deleted while such a job is written down or has not ended."""

import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import anyio.to_thread

from app.problems import UnavailableError
from app.services.folder_locks import ALONE, SHARED, FolderBusy, held, locked
from models.catalog import Catalog


def needed(spec: dict[str, Any]) -> str | None:
    """The version, `name@3`, that a job with this spec measures, exports or starts from; None where it needs none."""
    init = (spec.get("overrides") or {}).get("init") or {}
    return spec.get("model") or init.get("model")


async def kept(catalog: Catalog, spec: dict[str, Any]) -> AbstractContextManager[None]:
    """The version that the job needs cannot be deleted within the context.

    Raises ModelNotFound where there is none, UnavailableError.
    """
    ref = needed(spec)
    return nullcontext() if ref is None else await _locked(catalog, ref, SHARED)


async def deleting(catalog: Catalog, ref: str) -> AbstractContextManager[None]:
    """No job that needs the version is written down within the context. Raises as `kept`."""
    return await _locked(catalog, ref, ALONE)


async def _locked(catalog: Catalog, ref: str, how: int) -> AbstractContextManager[None]:
    name, version = await anyio.to_thread.run_sync(catalog.resolve, ref)
    folder = await anyio.to_thread.run_sync(catalog.folder, name, version)
    try:
        lock = await locked(folder, how)
    except FolderBusy as error:
        raise UnavailableError(
            "version_busy",
            f"Other requests keep {name}@{version} from being used or deleted.",
            hint="A deletion looks through the jobs; ask again later.",
        ) from error
    try:
        await anyio.to_thread.run_sync(catalog.folder, name, version)  # it may have been deleted meanwhile
    except BaseException:
        if lock is not None:
            os.close(lock)
        raise
    return nullcontext() if lock is None else held(lock)
