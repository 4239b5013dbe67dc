"""Jobs: asked for, looked at, followed, changed, deleted."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from app import event_responses
from app.auth import needs
from app.bodies import read_model, read_union
from app.deps import (
    Accept,
    After,
    EventCursor,
    IdempotencyKey,
    JobId,
    JobKinds,
    JobPriorities,
    JobStates,
    Limit,
    StateDep,
)
from app.problems import NotAcceptableError
from app.schemas.common import LOCATED, Page
from app.schemas.job_views import EVENT_EXAMPLE, EventBody, JobAccepted, JobBody
from app.schemas.jobs import CHANGES_BODY, ELSEWHERE, REQUESTS, SUBMIT_BODY, ChangesRequest
from app.schemas.problems import problem_responses
from app.services.jobs import Placed
from jobs.model import Kind
from store.keys import Scope

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], dependencies=needs(Scope.TRAIN))

Wait = Annotated[
    float, Query(ge=0, le=60, description="Answer as soon as the job has ended, at the latest after so many seconds.")
]
OfDataset = Annotated[str | None, Query(max_length=80, description="Only those that import it or read it.")]
OfModel = Annotated[
    str | None,
    Query(max_length=200, description="Only those that make, measure or export it: name, or name@3 for one version."),
]
Archived = Annotated[bool, Query(description="true: every job that has ended, however long ago, as the disk has it.")]
Follow = Annotated[bool, Query(description="false: end a stream where the history ends now.")]
_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "model": Page[EventBody],
        "content": {
            "text/event-stream": {
                "schema": {"type": "string"},
                "example": 'id: 1769860801000-0\nevent: epoch\ndata: {"epoch":3}\n\n',
            },
            "application/json": {"example": {"data": [EVENT_EXAMPLE], "has_more": False, "next": None}},
            "application/x-ndjson": {"schema": {"type": "string"}, "example": '{"id":"1769860801000-0"}\n'},
        },
    },
    **problem_responses(404, 406, 503),
}
_VERB = problem_responses(404, 409, 503)


def _shown(found: Placed) -> JobBody:
    return JobBody.of(found.job, position=found.position)


@router.post(
    "",
    status_code=202,
    responses={**LOCATED, **problem_responses(409, 503)},
    openapi_extra=SUBMIT_BODY,
    operation_id="create_job",
    summary="Ask for a job: train, evaluate, export",
)
async def submit(request: Request, response: Response, state: StateDep, key: IdempotencyKey) -> JobAccepted:
    """The job is on disk when the answer comes; the same Idempotency-Key never asks twice."""
    asked = await read_union(request, REQUESTS, tag="kind", hints=ELSEWHERE)
    found = await state.submissions.submit(Kind(asked.kind), asked.spec(), terms=asked.terms(), idempotency_key=key)
    response.headers["Location"] = f"/v1/jobs/{found.job.id}"
    return JobAccepted.of(found.job, position=found.position)


@router.get("", responses=problem_responses(503), operation_id="list_jobs", summary="List jobs")
async def jobs(
    *,
    state: StateDep,
    states: JobStates,
    kinds: JobKinds,
    priorities: JobPriorities,
    dataset: OfDataset = None,
    model: OfModel = None,
    archived: Archived = False,
    limit: Limit = 50,
    after: After = None,
) -> Page[JobBody]:
    """Newest first, as far back as Redis keeps ended jobs; with `archived=true` all that have ended, from disk.

    Entries are without an error's `log`, and without `per_class` and
    `confusion` of the result's metrics. Where few of many jobs fit, a page may hold fewer than `limit`, even none,
    while `has_more` says that others follow.
    """
    pages = state.jobs.archived_page if archived else state.jobs.page
    found, following = await pages(
        limit=limit,
        after=after,
        states=states,
        kinds=kinds,
        priorities=priorities,
        dataset=dataset,
        model=model,
    )
    data = [JobBody.listed(each.job, position=each.position) for each in found]
    return Page.of(data, following)


@router.get("/{job_id}", responses=problem_responses(404, 503), operation_id="get_job", summary="Look at a job")
async def job(state: StateDep, job_id: JobId, wait: Wait = 0.0) -> JobBody:
    """Its state, progress, metrics, and its result or error."""
    return _shown(await state.jobs.wait(job_id, wait))


@router.patch(
    "/{job_id}",
    status_code=202,
    responses=_VERB,
    openapi_extra=CHANGES_BODY,
    operation_id="change_job",
    summary="Change a job",
)
async def change(request: Request, state: StateDep, job_id: JobId, key: IdempotencyKey) -> JobBody:
    """Another `lr`, `epochs` or `patience` for a training under way, another `priority` for any job under way.

    What is left out stays as it is.
    """
    asked = await read_model(request, ChangesRequest)
    return _shown(await state.verbs.change(job_id, asked.settings(), asked.priority, key=key))


@router.delete("/{job_id}", status_code=204, responses=_VERB, operation_id="delete_job", summary="Delete a job")
async def delete(state: StateDep, job_id: JobId) -> Response:
    """An ended one, with its history, checkpoints and files. Refused while its model or its dataset is there."""
    await state.verbs.delete(job_id)
    return Response(status_code=204)


@router.get("/{job_id}/events", responses=_EVENTS, operation_id="follow_job", summary="Follow a job")
async def events(
    *,
    request: Request,
    state: StateDep,
    job_id: JobId,
    after: EventCursor,
    accept: Accept = "*/*",
    limit: Limit = 100,
    follow: Follow = True,
) -> Response:
    """Its history as it happens, as server-sent events unless Accept names another type: application/x-ndjson is lines
    of JSON, application/json is a page, and `limit` is the page's.
    """
    resuming = bool(request.headers.get("last-event-id"))
    rendering = event_responses.choose(accept, resuming=resuming)
    if rendering is None:
        hint = "text/event-stream, application/json or application/x-ndjson"
        raise NotAcceptableError("Events come in three media types.", hint=hint)
    if rendering == "page":
        found, more = await state.jobs.events(job_id, after=after, limit=limit)
        page = Page[EventBody](
            data=[EventBody(**vars(each)) for each in found], has_more=more, next=found[-1].id if more else None
        )
        headers = event_responses.PAGE_HEADERS
        return Response(page.model_dump_json(), media_type="application/json", headers=headers)
    await state.jobs.get(job_id)  # a job that is not there is a 404 and no stream
    state.jobs.feeds.check_room()
    told = state.jobs.follow(job_id, after=after) if follow else state.jobs.stored(job_id, after=after)
    headers = event_responses.STREAM_HEADERS
    if rendering == "sse":
        body = event_responses.sse(told, state=(lambda: state.jobs.state(job_id)) if follow else None)
        return StreamingResponse(body, media_type="text/event-stream", headers=headers)
    return StreamingResponse(event_responses.ndjson(told), media_type="application/x-ndjson", headers=headers)


@router.post("/{job_id}/cancel", status_code=202, responses=_VERB, operation_id="cancel_job", summary="Cancel a job")
async def cancel(state: StateDep, job_id: JobId, key: IdempotencyKey) -> JobBody:
    """At once, or as soon as the worker has stopped it. Nothing of it is registered."""
    return _shown(await state.verbs.cancel(job_id, key=key))


@router.post("/{job_id}/pause", status_code=202, responses=_VERB, operation_id="pause_job", summary="Pause a job")
async def pause(state: StateDep, job_id: JobId, key: IdempotencyKey) -> JobBody:
    """Out of the queue at once; a running one writes a checkpoint first and frees its device."""
    return _shown(await state.verbs.pause(job_id, key=key))


@router.post(
    "/{job_id}/resume", status_code=202, responses=_VERB, operation_id="resume_job", summary="Resume a paused job"
)
async def resume(state: StateDep, job_id: JobId, key: IdempotencyKey) -> JobBody:
    """Back into the queue; it goes on from its last checkpoint."""
    return _shown(await state.verbs.resume(job_id, key=key))


@router.post(
    "/{job_id}/finish",
    status_code=202,
    responses=_VERB,
    operation_id="finish_job",
    summary="Stop here and keep what there is",
)
async def finish(state: StateDep, job_id: JobId, key: IdempotencyKey) -> JobBody:
    """The training stops at its next step, is evaluated, and succeeds with the epoch that its recipe's `keep` names:
    the best so far, or the last whole one.
    """
    return _shown(await state.verbs.finish(job_id, key=key))


@router.post(
    "/{job_id}/checkpoint",
    status_code=202,
    responses=_VERB,
    operation_id="checkpoint_job",
    summary="Write a checkpoint now",
)
async def checkpoint(state: StateDep, job_id: JobId, key: IdempotencyKey) -> JobBody:
    """At the training's next step. The same Idempotency-Key asks once."""
    return _shown(await state.verbs.checkpoint(job_id, key=key))


@router.post(
    "/{job_id}/retry",
    status_code=202,
    responses={**LOCATED, **_VERB},
    operation_id="retry_job",
    summary="Try a job again",
)
async def retry(response: Response, state: StateDep, job_id: JobId) -> JobBody:
    """A new job with the same request, changes included, for one that failed or was cancelled; it begins at that one's
    newest checkpoint.
    """
    found = await state.verbs.retry(job_id)
    response.headers["Location"] = f"/v1/jobs/{found.job.id}"
    return _shown(found)
