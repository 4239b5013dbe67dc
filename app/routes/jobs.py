"""Jobs: asked for, looked at, followed, cancelled."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse

from app import event_responses
from app.auth import needs
from app.bodies import read_model
from app.deps import After, EventCursor, IdempotencyKey, JobId, Limit, StateDep
from app.problems import ProblemError
from app.schemas.common import Page, problem_responses
from app.schemas.jobs import EVENT_EXAMPLE, REQUEST_EXAMPLE, EventBody, JobBody, TrainRequest
from jobs.model import Kind
from jobs.model import State as JobState
from store.keys import Scope

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], dependencies=needs(Scope.TRAIN))

Wait = Annotated[
    float, Query(ge=0, le=60, description="Answer as soon as the job has ended, at the latest after this.")
]
_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": TrainRequest.model_json_schema(), "example": REQUEST_EXAMPLE}},
    }
}
_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "model": Page[EventBody],
        "content": {
            "application/json": {"example": {"data": [EVENT_EXAMPLE], "has_more": False, "next": None}},
            "text/event-stream": {
                "schema": {"type": "string"},
                "example": 'id: 1769860801000-0\nevent: epoch\ndata: {"id":"1769860801000-0","type":"epoch"}\n\n',
            },
            "application/x-ndjson": {"schema": {"type": "string"}, "example": '{"id":"1769860801000-0"}\n'},
        },
    },
    **problem_responses(401, 403, 404, 503),
}


@router.post(
    "", status_code=202, responses=problem_responses(401, 403, 409, 422, 503), openapi_extra=_BODY, summary="Train"
)
async def submit(request: Request, response: Response, state: StateDep, key: IdempotencyKey) -> JobBody:
    """Ask for a training. The job is on disk when the answer comes; the same Idempotency-Key never asks twice."""
    asked = await read_model(request, TrainRequest)
    job = await state.jobs.train(asked.spec(), idempotency_key=key)
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return JobBody.of(job)


@router.get("", responses=problem_responses(401, 403, 422, 503), summary="List jobs")
async def jobs(
    state: StateDep,
    limit: Limit = 50,
    after: After = None,
    job_state: Annotated[JobState | None, Query(alias="state")] = None,
    kind: Kind | None = None,
) -> Page[JobBody]:
    """Newest first."""
    found, more = await state.jobs.page(limit=limit, after=after, state=job_state, kind=kind)
    return Page(data=[JobBody.of(job) for job in found], has_more=more, next=found[-1].id if more else None)


@router.get("/{job_id}", responses=problem_responses(401, 403, 404, 503), summary="Look at a job")
async def job(state: StateDep, job_id: JobId, wait: Wait = 0.0) -> JobBody:
    """Its state, progress, metrics, and its result or error."""
    return JobBody.of(await state.jobs.wait(job_id, wait))


@router.get("/{job_id}/events", responses=_EVENTS, summary="Follow a job")
async def events(
    state: StateDep, job_id: JobId, cursor: EventCursor, accept: Annotated[str, Header()] = "*/*", limit: Limit = 100
) -> Response:
    """Its history: as it happens (Accept: text/event-stream or application/x-ndjson), or a page of JSON."""
    rendering = event_responses.choose(accept)
    if rendering is None:
        hint = "application/json, text/event-stream or application/x-ndjson"
        raise ProblemError("not_acceptable", "Events come in three media types.", hint=hint, status=406)
    if rendering == "page":
        found, more = await state.jobs.events(job_id, after=cursor, limit=limit)
        page = Page[EventBody](
            data=[EventBody(**vars(each)) for each in found], has_more=more, next=found[-1].id if more else None
        )
        return Response(page.model_dump_json(), media_type="application/json")
    await state.jobs.get(job_id)  # a job that is not there is a 404 and no stream
    state.jobs.feeds.check_room()
    followed = state.jobs.follow(job_id, after=cursor)
    headers = event_responses.STREAM_HEADERS
    if rendering == "sse":
        return StreamingResponse(event_responses.sse(followed), media_type="text/event-stream", headers=headers)
    return StreamingResponse(event_responses.ndjson(followed), media_type="application/x-ndjson", headers=headers)


@router.post(
    "/{job_id}/cancel", status_code=202, responses=problem_responses(401, 403, 404, 409, 503), summary="Cancel a job"
)
async def cancel(state: StateDep, job_id: JobId) -> JobBody:
    """Ends as soon as the worker has stopped it. Cancelling again changes nothing; a job that has ended is a 409."""
    return JobBody.of(await state.jobs.cancel(job_id))
