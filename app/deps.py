"""What routes ask for, as annotated dependencies."""

import re
from typing import Annotated, cast

from fastapi import Depends, Header, Path, Query, Request

from app.problems import BadRequestError, InvalidError, wrong
from app.state import State
from jobs.model import State as JobState

_EVENT_ID = re.compile(r"[0-9]{1,15}(-[0-9]{1,15})?")
START = "0-0"


async def state(request: Request) -> State:
    return cast("State", request.app.state.edge)


async def idempotency_key(key: Annotated[str | None, Header(alias="Idempotency-Key")] = None) -> str | None:
    """Raises BadRequestError for a key that is empty, long or not printable."""
    if key is not None and not (0 < len(key) <= 255 and key.isascii() and key.isprintable()):
        detail = "An Idempotency-Key is 1 to 255 printable ASCII characters"
        raise BadRequestError("invalid_idempotency_key", f"{detail}.", errors=wrong("/header/Idempotency-Key", detail))
    return key


async def event_cursor(
    last_event_id: Annotated[str | None, Header(alias="Last-Event-ID")] = None,
    after: Annotated[str | None, Query(description="Id of the last event that is known.", max_length=40)] = None,
) -> str:
    """Where to go on: Last-Event-ID, which a browser sends when it reconnects, before `?after=`."""
    for place, value in (("/header/Last-Event-ID", last_event_id), ("/query/after", after)):
        if value:
            if not _EVENT_ID.fullmatch(value):
                detail = "An event id reads <milliseconds>-<number>"
                raise BadRequestError("invalid_event_id", f"{detail}.", errors=wrong(place, detail))
            return value if "-" in value else f"{value}-0"
    return START


async def job_states(
    states: Annotated[
        str | None,
        Query(
            alias="state",
            max_length=200,
            description="Only these, commas between.",
            examples=["queued,running"],
        ),
    ] = None,
) -> frozenset[JobState] | None:
    """Raises InvalidError for what is no state."""
    if states is None:
        return None
    names = [name.strip() for name in states.split(",")]
    unknown = [name for name in names if name not in set(JobState)]
    if unknown:
        detail = f"{unknown[0][:40]!r} is no state of a job"
        hint = f"States: {', '.join(JobState)}."
        raise InvalidError("invalid_request", f"{detail}.", hint=hint, errors=wrong("/query/state", detail))
    return frozenset(JobState(name) for name in names)


StateDep = Annotated[State, Depends(state)]
IdempotencyKey = Annotated[str | None, Depends(idempotency_key)]
JobStates = Annotated[frozenset[JobState] | None, Depends(job_states)]
EventCursor = Annotated[str, Depends(event_cursor)]
Limit = Annotated[int, Query(ge=1, le=200, description="Most entries on the page.")]
After = Annotated[str | None, Query(max_length=200, description="`next` of the page before.")]
JobId = Annotated[str, Path(max_length=80, examples=["job_8d3f21aa"])]
DatasetId = Annotated[str, Path(max_length=80, examples=["ds_5c9a6f0d"])]
ModelRef = Annotated[str, Path(max_length=200, examples=["cifar10-resnet20"], description="name, name@3 or name@alias")]
