"""What may be asked of a job that is there: each verb is one transition of the ledger, and repeating it is harmless."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import anyio.to_thread
import orjson
from pydantic import ValidationError

from app.problems import ConflictError, FieldError, InvalidError, ProblemError, body_errors, told
from app.services.datasets import Datasets
from app.services.deletion import Deletion, is_marked
from app.services.jobs import Jobs, Placed, placed
from app.services.kept_versions import kept
from app.services.ledger import AsyncLedger
from app.services.submissions import check_ready
from jobs.answers import Answer, JobNotFound, RetryRefused
from jobs.ledger import Ledger
from jobs.model import LANES, Job, Kind, Lane, Priority, State
from models.catalog import Catalog, ModelNotFound
from models.recipes import Recipe, RecipeError, override, resolve
from store.datasets import UPLOAD
from store.faults import point
from store.layout import Layout

Verb = Literal["cancel", "pause", "resume", "finish", "checkpoint", "retry", "change"]

_DONE: dict[str, str] = {
    "cancel": "cancelled",
    "pause": "paused",
    "resume": "resumed",
    "finish": "finished",
    "checkpoint": "asked for a checkpoint",
    "retry": "tried again",
    "change": "changed",
}
_HINTS: dict[str, str] = {
    "cancel": "What has ended stays as it ended.",
    "pause": "Queued and running jobs can be paused.",
    "resume": "Only what is paused can be resumed; what failed or was cancelled can be tried again (retry).",
    "finish": "Only a training under way can be finished.",
    "checkpoint": "Only a training under way writes checkpoints.",
    "retry": "Only what failed or was cancelled can be tried again.",
    "change": "Only a job under way can be changed.",
}


class Verbs:
    def __init__(
        self,
        ledger: AsyncLedger,
        layout: Layout,
        datasets: Datasets,
        jobs: Jobs,
        deletion: Deletion,
        *,
        catalog: Catalog,
        ring: Callable[[Lane], None],
    ) -> None:
        self._ledger = ledger
        self._datasets = datasets
        self._layout = layout
        self._catalog = catalog
        self._jobs = jobs
        self._deletion = deletion
        self._ring = ring

    # Each raises NotFoundError, ConflictError for the wrong state, InvalidError for the wrong kind, UnavailableError.
    # A `key` that was used before for the same request answers as it did then, for ten minutes.

    async def cancel(self, job_id: str, *, key: str | None) -> Placed:
        return await self._ask("cancel", job_id, lambda ledger: ledger.cancel(job_id, key))

    async def pause(self, job_id: str, *, key: str | None) -> Placed:
        return await self._ask("pause", job_id, lambda ledger: ledger.pause(job_id, key))

    async def resume(self, job_id: str, *, key: str | None) -> Placed:
        return await self._ask("resume", job_id, lambda ledger: ledger.resume(job_id, key))

    async def finish(self, job_id: str, *, key: str | None) -> Placed:
        return await self._ask("finish", job_id, lambda ledger: ledger.finish(job_id, key))

    async def checkpoint(self, job_id: str, *, key: str | None) -> Placed:
        return await self._ask("checkpoint", job_id, lambda ledger: ledger.checkpoint(job_id, key))

    async def change(
        self, job_id: str, settings: Mapping[str, Any], priority: Priority | None, *, key: str | None
    ) -> Placed:
        """Other `lr`, `epochs` or `patience` for a training under way, another priority for any job under way."""
        wanted = dict(settings)
        digest = hashlib.sha256(orjson.dumps([wanted, priority], option=orjson.OPT_SORT_KEYS)).hexdigest()
        token = None if key is None else f"{key}:{digest}"
        if token is None or not await self._ledger.read(lambda ledger: ledger.has_patched(job_id, token)):
            job = (await self._jobs.get(job_id)).job
            if wanted and not job.ended:  # what has ended is refused anyway, for that
                wanted = _checked(job, wanted)
        return await self._ask(
            "change", job_id, lambda ledger: ledger.patch(job_id, settings=wanted, priority=priority, token=token)
        )

    async def retry(self, job_id: str) -> Placed:
        """The new job that tries an ended one again; the same one however often it is asked for.

        Raises ConflictError also where the dataset, the model version or the upload that it needs is no longer there.
        """
        job = (await self._jobs.get(job_id)).job
        if job.retried_as is not None or job.state not in (State.FAILED, State.CANCELLED):
            return await self._retry(job_id)
        if job.kind is Kind.ADOPT:
            await anyio.to_thread.run_sync(self._check_upload, job)
        try:
            with await kept(self._catalog, job.spec):
                return await self._retry_on_dataset(job)
        except ModelNotFound as error:
            raise ConflictError(
                "model_not_found",
                f"The job cannot be tried again: {error}.",
                hint=f"{error.hint}. Ask for a new job: POST /v1/jobs.",
                members={"state": job.state},
            ) from error

    async def _retry_on_dataset(self, job: Job) -> Placed:
        needed = job.spec.get("dataset")
        if needed is None:
            return await self._retry(job.id)
        try:
            kept_dataset = await self._datasets.kept(str(needed))
        except InvalidError as error:
            raise ConflictError(
                "dataset_not_found",
                f"The job cannot be tried again: its dataset {needed} is no longer there.",
                hint="Upload the images again and ask for a new job: POST /v1/jobs.",
                members={"state": job.state},
            ) from error
        with kept_dataset as dataset:
            if job.kind is not Kind.IMPORT:
                check_ready(dataset)
            return await self._retry(job.id)

    def _check_upload(self, job: Job) -> None:
        """An uploaded model lies in the folder of the first job that was to adopt it. Raises ConflictError."""
        first = str(job.spec["upload"])
        if is_marked(self._layout, first) or not (self._layout.job(first) / UPLOAD).exists():
            raise ConflictError(
                "upload_not_found",
                f"The job cannot be tried again: its upload went with job {first}.",
                hint="Upload the file again: POST /v1/models.",
                members={"state": job.state},
            )

    async def _retry(self, job_id: str) -> Placed:
        def write(ledger: Ledger) -> Placed:
            return placed(ledger, ledger.retry(job_id).job_id)

        point("verb.before")
        try:
            found = await self._ledger.write(write)
        except RetryRefused as error:
            raise _wrong_state("retry", error.state) from error
        except JobNotFound as error:
            raise await self._gone("retry", job_id) from error
        point("verb.written")
        self._ring_for(found.job)
        return found

    async def delete(self, job_id: str) -> None:
        """An ended job with its folder; again where that was cut off. Raises ConflictError for what must stay."""
        if not is_marked(self._layout, job_id):
            await self._deletion.check((await self._jobs.get(job_id)).job)
        point("verb.before")
        await self._deletion.run(job_id)
        point("verb.written")

    async def _ask(self, verb: Verb, job_id: str, call: Callable[[Ledger], Answer]) -> Placed:
        def write(ledger: Ledger) -> tuple[Answer, Placed]:
            return call(ledger), placed(ledger, job_id)

        point("verb.before")
        try:
            answer, found = await self._ledger.write(write)
        except JobNotFound as error:
            return await self._of_archived(verb, job_id, error)
        point("verb.written")
        if answer.outcome not in ("done", "unchanged"):
            raise _refusal(verb, answer, found.job)
        self._ring_for(found.job)
        return found

    async def _of_archived(self, verb: Verb, job_id: str, error: JobNotFound) -> Placed:
        """Of a job that only the disk knows: it has ended, so nothing but a repeated cancellation is right."""
        found = await self._jobs.get(job_id)
        if verb == "cancel" and found.job.state is State.CANCELLED:
            return found
        raise _wrong_state(verb, found.job.state) from error

    async def _gone(self, verb: Verb, job_id: str) -> ProblemError:
        job = (await self._jobs.get(job_id)).job
        if job.state is State.SUCCEEDED:
            return _wrong_state(verb, job.state)
        return ConflictError(
            "job_archived",
            f"The job cannot be {_DONE[verb]}: it is {job.state}, and so long ago that only its record is kept.",
            hint="POST /v1/jobs with its `spec` asks for a new one.",
            members={"state": job.state},
        )

    def _ring_for(self, job: Job) -> None:
        if job.state is State.QUEUED:
            self._ring(LANES[job.kind])


def _refusal(verb: Verb, answer: Answer, job: Job) -> ProblemError:
    match answer.outcome:
        case "publishing":
            return ConflictError(
                "job_publishing",
                f"The job cannot be {_DONE[verb]}: it is {answer.before} and just publishing its result.",
                hint="Look again in a moment.",
                members={"state": answer.before},
            )
        case "nothing_to_keep":
            return ConflictError(
                "nothing_to_keep",
                f"The job cannot be finished: it is {answer.before} and has trained nothing yet.",
                hint=f"POST /v1/jobs/{job.id}/cancel ends it.",
                members={"state": answer.before},
            )
        case "not_for_kind":
            return _not_for_kind(f"Only a training can be {_DONE[verb]}; this job is of kind {job.kind}")
        case _:
            return _wrong_state(verb, answer.before)


def _wrong_state(verb: Verb, state: State) -> ConflictError:
    return ConflictError(
        "wrong_state", f"The job cannot be {_DONE[verb]}: it is {state}.", hint=_HINTS[verb], members={"state": state}
    )


def _not_for_kind(detail: str, names: Mapping[str, Any] | None = None) -> InvalidError:
    errors: list[FieldError] = [{"pointer": f"#/{name}", "detail": detail} for name in names or {}]
    hint = "`priority` can be changed for every kind." if names else "GET /v1/jobs/{id} says of which kind a job is."
    return InvalidError("not_for_kind", f"{detail}.", hint=hint, errors=errors)


def _checked(job: Job, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings as the recipe takes them. Raises InvalidError, which points at the field."""
    if job.kind is not Kind.TRAIN:
        names = ", ".join(settings)
        raise _not_for_kind(f"Only a training has {names}; this job is of kind {job.kind}", settings)
    try:
        recipe = resolve(job.spec["recipe"], job.spec["overrides"])
        changed = override(recipe, {**job.orders.settings, **settings})
    except RecipeError as error:
        raise InvalidError("invalid_settings", f"{error}.", hint=error.hint) from error
    except ValidationError as error:
        errors = body_errors(error)
        hint = _meaning(settings, errors)
        raise InvalidError("invalid_settings", f"{told(errors)}.", hint=hint, errors=errors) from error
    begun = (job.progress or {}).get("epoch")
    if "epochs" in settings and isinstance(begun, int) and changed.epochs < begun:
        detail = f"epoch {begun} has begun"
        raise InvalidError(
            "invalid_settings",
            f"epochs cannot be {changed.epochs}: {detail}.",
            hint=f"POST /v1/jobs/{job.id}/finish ends the training now with the epoch that its `keep` names.",
            errors=[{"pointer": "#/epochs", "detail": detail}],
        )
    return {name: getattr(changed, name) for name in settings}


def _meaning(settings: Mapping[str, Any], errors: Sequence[FieldError]) -> str:
    """What the fields mean, for the reader of an error."""
    if any(each["pointer"] == "#" for each in errors):
        return "GET /v1/recipes shows every field; `epochs` must not be less than its warmup_epochs and freeze_epochs."
    said = ((name, Recipe.model_fields[name].description) for name in settings)
    meanings = " ".join(f"{name}: {description}" for name, description in said if description)
    return meanings or "GET /v1/recipes shows every field with a value that does."
