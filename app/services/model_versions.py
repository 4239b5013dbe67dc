"""One version of a model: its card, labels and figures, its files to take away, and its end."""

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import anyio.to_thread

from app.inference.fleet import FleetClient
from app.problems import ConflictError
from app.services.jobs import under_way
from app.services.kept_versions import deleting, needed
from app.services.ledger import AsyncLedger
from app.services.models import Models, not_found
from app.services.upload_parts import open_part
from jobs.answers import JobNotFound
from models import bundle
from models.card import card
from models.catalog import Catalog, ModelNotFound, VersionInUse
from models.manifest import WEIGHTS, Manifest, ModelDamagedError
from store.layout import Layout

Form = Literal["bundle", "weights"]


@dataclass(frozen=True)
class File:
    """A file to send, whose `path` is None where the client has it already. `lock` is an open file where it was made
    for this answer, which removes it and closes that.
    """

    path: Path | None
    filename: str
    media_type: str
    etag: str
    lock: int | None = None

    def discard(self) -> None:
        if self.path is not None and self.lock is not None:
            self.path.unlink(missing_ok=True)
            os.close(self.lock)


class ModelVersions:
    def __init__(
        self, catalog: Catalog, models: Models, fleet: FleetClient, ledger: AsyncLedger, layout: Layout
    ) -> None:
        self._catalog = catalog
        self._models = models
        self._fleet = fleet
        self._ledger = ledger
        self._layout = layout

    # Each raises NotFoundError, and ModelDamagedError but for the deletion.

    async def card(self, ref: str) -> str:
        name, version, manifest = await self._find(ref)
        return card(name, version, manifest)

    async def labels(self, ref: str) -> dict[str, Any]:
        """`labels[i]` is the name of class index i."""
        name, version, manifest = await self._find(ref)
        return {"model": name, "version": version, "labels": list(manifest.classes)}

    async def metrics(self, ref: str) -> dict[str, Any]:
        """What its evaluation gave; empty for one that was never evaluated here."""
        name, version, manifest = await self._find(ref)
        temperature = manifest.calibration.temperature if manifest.calibration else None
        return {"model": name, "version": version, "metrics": manifest.metrics, "temperature": temperature}

    async def download(self, name: str, version: int, form: Form, *, has: Callable[[str], bool]) -> File:
        """The weights as safetensors, or all of it as one zip: the bytes that an export would give.

        `has`: whether the client has the file of this ETag; nothing is zipped for it then.
        """
        base, _, manifest = await self._find(f"{name}@{version}")
        folder = self._catalog.folder(base, version)
        if form == "weights":
            filename = f"{base}-{version}.safetensors"
            etag = manifest.weights_sha256
            return File(None if has(etag) else folder / WEIGHTS, filename, "application/octet-stream", etag)
        return await anyio.to_thread.run_sync(self._bundle, folder, base, version, has)

    async def delete(self, name: str, version: int) -> None:
        """Remove a version for good, a damaged one too. Raises ConflictError while it is needed, UnavailableError."""
        base, _ = await self._models.resolve(f"{name}@{version}")
        with suppress(ModelDamagedError):  # which cannot tell whose it is
            _, _, manifest = await self._find(f"{name}@{version}")
            await self._check_published(manifest.lineage.job)
        try:
            used = partial(self._user, base, version)
            with await deleting(self._catalog, f"{base}@{version}"):
                await self._check_no_job_needs(f"{base}@{version}")
                await anyio.to_thread.run_sync(lambda: self._catalog.delete(base, version, used=used))
        except ModelNotFound as error:
            raise not_found(error) from error
        except VersionInUse as error:
            raise ConflictError(
                "version_in_use",
                f"{base}@{version} cannot be deleted: {error.by}.",
                hint=f"Point the alias elsewhere, or POST /v1/models/{base}@{version}:unload, then delete it.",
            ) from error

    async def _find(self, ref: str) -> tuple[str, int, Manifest]:
        name, version = await self._models.resolve(ref)
        try:
            return name, version, await anyio.to_thread.run_sync(self._catalog.manifest, name, version)
        except ModelNotFound as error:
            raise not_found(error) from error

    async def _check_published(self, job_id: str) -> None:
        """The job that is just publishing the version would do so again."""
        try:
            job = await self._ledger.read(lambda ledger: ledger.get(job_id))
        except JobNotFound:
            return
        if not job.ended:
            raise ConflictError(
                "job_publishing", f"Job {job_id} is just publishing this version.", hint="Ask again in a moment."
            )

    async def _check_no_job_needs(self, ref: str) -> None:
        user = await self._ledger.search(lambda ledger: under_way(ledger, lambda job: needed(job.spec) == ref))
        if user is not None:
            raise ConflictError(
                "version_in_use",
                f"{ref} cannot be deleted: job {user.id} ({user.kind}, {user.state}) needs it.",
                hint=f"Wait until it has ended, or cancel it: POST /v1/jobs/{user.id}/cancel",
            )

    def _user(self, name: str, version: int) -> str | None:
        found = next((route for route in self._fleet.engines(name) if route.version == version), None)
        return None if found is None else f"it has an engine, which is {found.state}"

    def _bundle(self, folder: Path, name: str, version: int, has: Callable[[str], bool]) -> File:
        members = list(bundle.members(folder, name, version))
        small = [content for _, content in members if isinstance(content, bytes)]
        digest = hashlib.sha256((folder / "model.json").read_bytes() + b"".join(small)).hexdigest()
        filename, media_type = f"{name}-{version}.zip", "application/zip"
        if has(digest):
            return File(None, filename, media_type, digest)
        path = self._layout.uploads / f"bundle-{uuid4().hex}.part"
        lock = open_part(path)
        made = File(path, filename, media_type, digest, lock)
        try:
            with os.fdopen(os.dup(lock), "w+b") as target:
                bundle.write_zip(target, iter(members), top=f"{name}-{version}")
        except BaseException:
            made.discard()
            raise
        return made
