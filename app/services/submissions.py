"""New jobs: each kind's request is checked against what there is, written down once, and rung for."""

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import anyio.to_thread
import orjson

from app import tracing
from app.problems import ConflictError, InvalidError, NotFoundError, wrong
from app.services import recipes
from app.services.dataset_views import DatasetView, Status
from app.services.datasets import Datasets
from app.services.jobs import Jobs, Placed, placed
from app.services.kept_versions import kept
from app.services.ledger import AsyncLedger
from app.services.webhook_targets import Targets
from jobs.answers import IdempotencyConflict
from jobs.ledger import Ledger
from jobs.model import LANES, Kind, Lane, Priority, Webhook
from models.catalog import Catalog, ModelNotFound
from models.classes import ClassesDiffer, map_into
from store.faults import point


@dataclass(frozen=True)
class Terms:
    """What every kind may be asked with. `asked` is the whole request, by which repetitions are told from others."""

    priority: Priority = Priority.NORMAL
    max_seconds: float | None = None
    webhook: Webhook | None = None
    asked: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Submission:
    """What a job is asked with besides its spec, and what tells a repetition of the request from another one."""

    terms: Terms
    idempotency: tuple[str, str] | None


class Submissions:
    def __init__(
        self,
        ledger: AsyncLedger,
        datasets: Datasets,
        catalog: Catalog,
        targets: Targets,
        jobs: Jobs,
        *,
        ring: Callable[[Lane], None],
    ) -> None:
        self._ledger = ledger
        self._datasets = datasets
        self._catalog = catalog
        self._targets = targets
        self._jobs = jobs
        self._ring = ring

    async def submit(self, kind: Kind, spec: dict[str, Any], *, terms: Terms, idempotency_key: str | None) -> Placed:
        """A job of any kind that a client may ask for, on disk when this returns.

        A request that was made before is answered with its job, whatever became of dataset or settings since.
        Raises InvalidError, ConflictError, UnavailableError.
        """
        submission = _Submission(terms, _idempotency(idempotency_key, terms.asked))
        if (known := await self._known(submission.idempotency)) is not None:
            return known
        if terms.webhook is not None and (refusal := self._targets.refusal(terms.webhook.url)) is not None:
            hint = "RESNETD_WEBHOOK_HOSTS names hosts that webhooks may reach besides public ones."
            raise InvalidError("webhook_refused", f"{refusal}.", hint=hint, errors=wrong("#/webhook/url", refusal))
        match kind:
            case Kind.TRAIN:
                return await self._train(spec, submission)
            case Kind.EVALUATE:
                return await self._evaluate(spec, submission)
            case Kind.EXPORT:
                return await self._export(spec, submission)
            case Kind.IMPORT | Kind.ADOPT:
                asked_at = "/v1/datasets" if kind is Kind.IMPORT else "/v1/models"
                detail = f"POST {asked_at}, an upload, asks for this kind"
                hint = f"`curl -T FILE 'localhost:8000{asked_at}?name=NAME'` sends a file; the answer names its job."
                raise InvalidError("invalid_request", f"{detail}.", hint=hint, errors=wrong("#/kind", detail))

    async def _train(self, spec: dict[str, Any], submission: _Submission) -> Placed:
        """`recipe` with `overrides` on `dataset`."""
        spec = await recipes.checked(spec, self._catalog)
        with await self._kept(spec), await self._datasets.kept(spec["dataset"]) as dataset:
            check_ready(dataset)
            return await self._write(Kind.TRAIN, spec, submission)

    async def _evaluate(self, spec: dict[str, Any], submission: _Submission) -> Placed:
        """A model version on a `split` of `dataset`; an alias means the version that it points to now."""
        spec = {**spec, "model": await self._version(spec["model"])}
        with await self._kept(spec), await self._datasets.kept(spec["dataset"]) as dataset:
            check_ready(dataset)
            check_split(dataset, spec["split"])
            await anyio.to_thread.run_sync(self._check_classes, spec["model"], dataset)
            return await self._write(Kind.EVALUATE, spec, submission)

    async def _export(self, spec: dict[str, Any], submission: _Submission) -> Placed:
        """A model version in another `format`; an alias means the version that it points to now."""
        spec = {**spec, "model": await self._version(spec["model"])}
        with await self._kept(spec):
            return await self._write(Kind.EXPORT, spec, submission)

    async def _kept(self, spec: dict[str, Any]) -> AbstractContextManager[None]:
        """The model version that the job needs, if any, cannot be deleted within the context. Raises InvalidError."""
        try:
            return await kept(self._catalog, spec)
        except ModelNotFound as error:
            place = "#/model" if "model" in spec else "#/overrides/init/model"
            errors = wrong(place, str(error))
            raise InvalidError("model_not_found", f"{error}.", hint=error.hint, errors=errors) from error

    async def _known(self, idempotency: tuple[str, str] | None) -> Placed | None:
        if idempotency is None:
            return None
        try:
            job_id = await self._ledger.read(lambda ledger: ledger.asked(idempotency))
        except IdempotencyConflict as error:
            raise idempotency_conflict() from error
        return None if job_id is None else await self._made(job_id)

    async def _made(self, job_id: str) -> Placed:
        """The job of a submission; a repetition's may have ended so long ago that the disk alone knows it."""
        try:
            return await self._jobs.get(job_id)
        except NotFoundError as error:
            detail = f"The job {job_id} that was asked for under this Idempotency-Key has been deleted."
            raise ConflictError("job_deleted", detail, hint="Take a new Idempotency-Key to ask again.") from error

    async def _version(self, ref: str) -> str:
        """`name@version` of what `ref` means. Raises InvalidError."""
        try:
            name, version = await anyio.to_thread.run_sync(self._catalog.resolve, ref)
        except ModelNotFound as error:
            errors = wrong("#/model", str(error))
            raise InvalidError("model_not_found", f"{error}.", hint=error.hint, errors=errors) from error
        return f"{name}@{version}"

    def _check_classes(self, model: str, dataset: DatasetView) -> None:
        """Raises InvalidError where the dataset has a class that the model has not."""
        name, _, version = model.partition("@")
        manifest = self._catalog.manifest(name, int(version))
        try:
            map_into(manifest.classes, dataset.descriptor.classes if dataset.descriptor is not None else ())
        except ClassesDiffer as error:
            raise InvalidError(
                "classes_differ",
                f"Dataset {dataset.id} has classes that {model} does not have: {error}.",
                hint=f"{error.hint} GET /v1/models/{model}/labels lists the model's.",
                errors=wrong("#/dataset", str(error)),
            ) from error

    async def _write(self, kind: Kind, spec: dict[str, Any], submission: _Submission) -> Placed:
        terms = submission.terms
        traceparent = tracing.current().traceparent

        def write(ledger: Ledger) -> tuple[str, Placed | None]:
            made = ledger.submit(
                kind,
                spec,
                idempotency=submission.idempotency,
                priority=terms.priority,
                max_seconds=terms.max_seconds,
                webhook=terms.webhook,
                traceparent=traceparent,
            )
            return made.job_id, placed(ledger, made.job_id) if made.created else None

        point("submit.before")
        try:
            job_id, found = await self._ledger.write(write)
        except IdempotencyConflict as error:
            raise idempotency_conflict() from error
        point("submit.written")
        self._ring(LANES[kind])
        point("submit.rung")
        return found or await self._made(job_id)


def _idempotency(key: str | None, asked: dict[str, Any]) -> tuple[str, str] | None:
    """One key is one job, of whatever kind."""
    if key is None:
        return None
    digest = hashlib.sha256(orjson.dumps(asked, option=orjson.OPT_SORT_KEYS)).hexdigest()
    return "job:" + hashlib.sha256(key.encode()).hexdigest(), digest


def idempotency_conflict() -> InvalidError:
    return InvalidError(
        "idempotency_conflict",
        "This Idempotency-Key was used for another request.",
        hint="Send the same request again, or this one with a new key.",
    )


def check_split(dataset: DatasetView, split: str) -> None:
    """Raises InvalidError for a split that the dataset has not, or that has no image."""
    splits = dataset.descriptor.splits if dataset.descriptor is not None else {}
    filled = [name for name, each in splits.items() if each.images > 0]
    if split not in filled:
        detail = f"Dataset {dataset.id} has no split {split!r}"
        hint = f"Its splits: {', '.join(filled)}."
        raise InvalidError("split_not_found", f"{detail}.", hint=hint, errors=wrong("#/split", detail))


def check_ready(dataset: DatasetView) -> None:
    """Raises ConflictError for a dataset whose import goes on or did not succeed."""
    if dataset.status is Status.IMPORTING:
        raise ConflictError(
            "dataset_not_ready",
            f"Dataset {dataset.id} is still being imported.",
            hint=f"Wait for it: GET /v1/jobs/{dataset.job}?wait=30",
        )
    if dataset.status is not Status.READY:
        reason = f": {dataset.error.message}" if dataset.error else ""
        raise ConflictError(
            "dataset_failed",
            f"The import of dataset {dataset.id} {dataset.status}{reason}",
            hint="Upload it again; GET /v1/datasets/{id} says what was wrong.",
        )
