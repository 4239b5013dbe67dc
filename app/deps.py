"""What routes ask for, as annotated dependencies."""

import re
from enum import StrEnum
from typing import Annotated, Any, NoReturn, TypeVar, cast, get_args, get_origin

from fastapi import Depends, Header, Path, Query, Request
from fastapi.dependencies.models import Dependant

from app.problems import BadRequestError, InvalidError, wrong
from app.schemas.jobs import YEAR_SECONDS
from app.services.dataset_views import Status
from app.state import State
from jobs.model import Kind, Priority
from jobs.model import State as JobState
from models.nearest import did_you_mean

_EVENT_ID = re.compile(r"[0-9]{1,15}(-[0-9]{1,15})?")
START = "0-0"
_ONCE = (
    "1 to 255 printable ASCII characters; a UUID does. The same request under the same key counts once, however "
    "often it is sent: a submission or an upload for 48 hours, a verb of a job for ten minutes."
)
_RESUMED = "The `id` of the last event that was seen: the stream goes on behind it. It counts before `after`."
MAX_LIMIT = 200  # of a page; lists that are short anyway come whole unless they are asked for less


async def state(request: Request) -> State:
    return cast("State", request.app.state.edge)


async def idempotency_key(
    request: Request,
    key: Annotated[str | None, Header(alias="Idempotency-Key", description=_ONCE)] = None,
) -> str | None:
    """The key, with the API key's id in front of it: what one client calls `job-1` is not what another does.

    Raises BadRequestError for a key that is empty, long or not printable.
    """
    if key is not None and not (0 < len(key) <= 255 and key.isascii() and key.isprintable()):
        detail = "An Idempotency-Key is 1 to 255 printable ASCII characters"
        hint = "A UUID does; without the header each request counts."
        errors = wrong("/header/Idempotency-Key", detail)
        raise BadRequestError("invalid_idempotency_key", f"{detail}.", hint=hint, errors=errors)
    holder = request.app.state.edge.gate.holder(request.headers.get("authorization"))
    return key if key is None or holder is None else f"{holder}\n{key}"  # no header holds a line break


async def event_cursor(
    last_event_id: Annotated[str | None, Header(alias="Last-Event-ID", description=_RESUMED)] = None,
    after: Annotated[str | None, Query(description="Id of the last event that is known.", max_length=40)] = None,
) -> str:
    """Where to go on: Last-Event-ID, which a browser sends when it reconnects, before `?after=`."""
    for place, value in (("/header/Last-Event-ID", last_event_id), ("/query/after", after)):
        if value:
            if not _EVENT_ID.fullmatch(value):
                detail = "An event id reads <milliseconds>-<number>"
                hint = "Send the `id` of the last event that was seen, or nothing for all."
                raise BadRequestError("invalid_event_id", f"{detail}.", hint=hint, errors=wrong(place, detail))
            return value if "-" in value else f"{value}-0"
    return START


_Choice = TypeVar("_Choice", bound=StrEnum)


def _any_of(kind: type[StrEnum]) -> Any:  # noqa: ANN401 - Query's
    among = f"Only those that are one of these: {', '.join(kind)}."
    return Query(max_length=20, description=f"{among} Several with commas between, or the parameter repeated.")


def _several(kind: type[_Choice], name: str, given: list[str] | None, *, of: str = "job") -> frozenset[_Choice] | None:
    """Raises InvalidError for what is no `kind`."""
    if given is None:
        return None
    names = [part.strip() for text in given for part in text.split(",")]
    unknown = [part for part in names if part not in set(kind)]
    if unknown:
        detail = f"{unknown[0][:40]!r} is no {name} of a {of}"
        hint = f"There are: {', '.join(kind)}."
        raise InvalidError("invalid_request", f"{detail}.", hint=hint, errors=wrong(f"/query/{name}", detail))
    return frozenset(kind(part) for part in names)


async def job_states(state: Annotated[list[str] | None, _any_of(JobState)] = None) -> frozenset[JobState] | None:
    """Raises InvalidError for what is no state."""
    return _several(JobState, "state", state)


async def job_kinds(kind: Annotated[list[str] | None, _any_of(Kind)] = None) -> frozenset[Kind] | None:
    """Raises InvalidError for what is no kind."""
    return _several(Kind, "kind", kind)


async def job_priorities(priority: Annotated[list[str] | None, _any_of(Priority)] = None) -> frozenset[Priority] | None:
    """Raises InvalidError for what is no priority."""
    return _several(Priority, "priority", priority)


async def dataset_statuses(status: Annotated[list[str] | None, _any_of(Status)] = None) -> frozenset[Status] | None:
    """Raises InvalidError for what is no status."""
    return _several(Status, "status", status, of="dataset")


async def upload_terms(
    priority: Annotated[Priority | None, Query(description="Of its job, by default normal; a form may say it.")] = None,
    max_seconds: Annotated[
        float | None, Query(gt=0, le=YEAR_SECONDS, description="How long its job may run; a form may say it.")
    ] = None,
) -> dict[str, object]:
    """What the query says of an upload's job."""
    given = {"priority": priority, "max_seconds": max_seconds}
    return {name: value for name, value in given.items() if value is not None}


async def known_query(request: Request) -> None:
    """Raises InvalidError for a query parameter that the route does not have, or has once and is given twice."""
    given = request.query_params
    if not given:
        return
    fields = _query_fields(request.scope["route"].dependant)
    for name in given:
        if name not in fields:
            known = f"Parameters here: {', '.join(fields)}." if fields else "This address has no query parameters."
            _refuse_query(name, "unknown parameter", did_you_mean(name, fields) + known)
        if len(given.getlist(name)) > 1 and not fields[name]:
            _refuse_query(name, "given more than once", f"Send `{name}` once.")


def _query_fields(dependant: Dependant) -> dict[str, bool]:
    """The query parameters of a route and of all it depends on, each with whether it may be repeated."""
    found = {}
    for field in dependant.query_params:
        annotation = field.field_info.annotation
        found[field.alias] = any(get_origin(kind) is list for kind in (annotation, *get_args(annotation)))
    for each in dependant.dependencies:
        found |= _query_fields(each)
    return found


def _refuse_query(name: str, detail: str, hint: str) -> NoReturn:
    place = f"/query/{name[:80]}"
    raise InvalidError("invalid_request", f"{place}: {detail}.", hint=hint, errors=wrong(place, detail))


StateDep = Annotated[State, Depends(state)]
IdempotencyKey = Annotated[str | None, Depends(idempotency_key)]
JobStates = Annotated[frozenset[JobState] | None, Depends(job_states)]
JobKinds = Annotated[frozenset[Kind] | None, Depends(job_kinds)]
JobPriorities = Annotated[frozenset[Priority] | None, Depends(job_priorities)]
DatasetStatuses = Annotated[frozenset[Status] | None, Depends(dataset_statuses)]
UploadTerms = Annotated[dict[str, object], Depends(upload_terms)]
EventCursor = Annotated[str, Depends(event_cursor)]
Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Most entries on the page.")]
After = Annotated[str | None, Query(max_length=200, description="`next` of the page before.")]
IfNoneMatch = Annotated[
    str, Header(alias="If-None-Match", description="The ETag of what is there already: a 304 where it is still so.")
]
Accept = Annotated[
    str, Header(include_in_schema=False)
]  # OpenAPI has the answer's media types instead, and ignores this name
JobId = Annotated[
    str, Path(max_length=80, examples=["job_8d3f21aa"], description="The job's `id`, from its submission or the list.")
]
DatasetId = Annotated[
    str, Path(max_length=80, examples=["ds_5c9a6f0d"], description="The dataset's `id`, from its upload or the list.")
]
ModelName = Annotated[
    str, Path(max_length=80, examples=["cifar10-resnet20"], description="The model's name, without a version or alias.")
]
ModelRef = Annotated[str, Path(max_length=200, examples=["cifar10-resnet20"], description="name, name@3 or name@alias")]
