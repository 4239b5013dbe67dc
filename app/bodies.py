"""Request bodies: counted while they arrive, read by strict JSON, checked against a model that forbids the unknown."""

import asyncio
import math
from collections.abc import AsyncIterator, Mapping
from typing import Any, TypeVar, get_args

import anyio.to_thread
import orjson
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from starlette.requests import ClientDisconnect, Request

from app.problems import BadRequestError, InvalidError, TooLargeError, TooSlowError, field_errors, told, wrong
from app.services.admission import Ticket
from models.nearest import did_you_mean

MAX_JSON_BYTES = 1_000_000  # requests of JSON alone: jobs, plans, aliases
_SMALL = "This request is a small JSON object; no setting lets it be larger."
MIN_RATE = 16 * 1024  # bytes a second that a body must come with, on average from its second GRACE_SECONDS on
GRACE_SECONDS = 10.0
IDLE_SECONDS = 30.0  # without a byte, however fast the body was before
WHOLE_SECONDS = 120.0  # for a whole body; uploads of datasets and models take as long as their rate allows
_PARSE_IN_THREAD = 256 * 1024  # bytes from which parsing would be felt by other requests

Model = TypeVar("Model", bound=BaseModel)


def announced(request: Request) -> int:
    """The body's Content-Length; 0 where it has none."""
    declared = next((value for name, value in request.scope["headers"] if name == b"content-length"), b"").lstrip(b"0")
    return int(declared[:20]) if declared.isdigit() else 0  # with more digits it is too much, too


def check_length(request: Request, limit: int, *, hint: str) -> None:
    """Refuse by Content-Length, before anything is read. Raises TooLargeError."""
    if announced(request) > limit:
        raise too_large(limit, hint=hint)


def too_large(limit: int, *, hint: str) -> TooLargeError:
    return TooLargeError("body_too_large", f"The body is larger than {limit:,} bytes.", hint=hint)


async def stream(request: Request, limit: int, *, hint: str, seconds: float | None = None) -> AsyncIterator[bytes]:
    """The body's pieces as they arrive.

    Raises TooLargeError as soon as there are more than `limit` bytes, TooSlowError as soon as it has come too slowly or
    for more than `seconds` (WHOLE_SECONDS where they are not said), UnavailableError and TooManyError where it is too
    much beside others; ClientDisconnect.
    """
    check_length(request, limit, hint=hint)
    seconds = WHOLE_SECONDS if seconds is None else seconds
    ticket: Ticket | None = request.scope.get("ticket")
    clock = asyncio.get_running_loop().time
    total, waited, more = 0, 0.0, True
    while more:
        began = clock()
        try:
            async with asyncio.timeout(max(patience(total, waited, seconds=seconds), 0.0)):
                message = await request.receive()
        except TimeoutError as error:
            raise _too_slow(total, seconds) from error
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        piece, more = message.get("body", b""), message.get("more_body", False)
        waited += clock() - began
        total += len(piece)
        if total > limit:
            raise too_large(limit, hint=hint)
        if ticket is not None:
            ticket.hold(total)
        if piece:
            yield piece


def patience(total: int, waited: float, *, seconds: float) -> float:
    """For how many seconds a body's next bytes are waited for, after `total` bytes for which we `waited` seconds.

    The time in which we did not read, because a disk was slow say, is not the client's.
    """
    return min(min(GRACE_SECONDS + total / MIN_RATE, seconds) - waited, IDLE_SECONDS)


def _too_slow(total: int, seconds: float) -> TooSlowError:
    within = "" if math.isinf(seconds) else f", and in {seconds:g} s"
    return TooSlowError(
        "upload_too_slow",
        f"The body came too slowly: {total:,} bytes, then nothing more in time.",
        hint=f"Bodies come with {MIN_RATE:,} bytes a second at least{within}.",
    )


async def read(request: Request, limit: int, *, hint: str) -> bytes:
    """The whole body, at most `limit` bytes."""
    return b"".join([piece async for piece in stream(request, limit, hint=hint)])


async def parse_json(body: bytes) -> Any:  # noqa: ANN401 - anything that JSON can hold
    """Strict JSON: no NaN, no endless nesting. Raises BadRequestError."""
    try:
        if len(body) > _PARSE_IN_THREAD:
            return await anyio.to_thread.run_sync(orjson.loads, body)
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequestError("invalid_json", f"The body is not JSON: {error}.", hint=_json_hint(body)) from error


def _json_hint(body: bytes) -> str:
    return "Send a JSON object in UTF-8." if body else "The body is empty; send a JSON object."


def validate(model: type[Model], value: object) -> Model:
    """`value` as `model`. Raises InvalidError, which points at each wrong field and names the nearest known one."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False, include_input=False)
        errors = field_errors(details, place="body")
        raise InvalidError("invalid_request", told(errors), hint=_hint(model, details), errors=errors) from error


def _hint(model: type[BaseModel], details: list[ErrorDetails]) -> str:
    """About the object that the first wrong field is in; an unknown field comes before all others."""
    first = min(details, key=lambda detail: detail["type"] != "extra_forbidden")
    for step in first["loc"][:-1]:
        model = _within(model, str(step)) or model
    known = list(model.model_fields)
    if first["type"] == "extra_forbidden":
        return did_you_mean(str(first["loc"][-1]), known) + f"Fields: {', '.join(known)}."
    return f"Fields: {', '.join(known)}; /openapi.json has an example."


def _within(model: type[BaseModel], name: str) -> type[BaseModel] | None:
    """The model of a field, where it is one, perhaps or null."""
    field = model.model_fields.get(name)
    kinds = (field.annotation, *get_args(field.annotation)) if field else ()
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


async def read_model(request: Request, model: type[Model]) -> Model:
    """The JSON body as `model`."""
    body = await read(request, MAX_JSON_BYTES, hint=_SMALL)
    return validate(model, await parse_json(body))


async def read_union(
    request: Request, models: Mapping[str, type[Model]], *, tag: str, hints: Mapping[str, str]
) -> Model:
    """The JSON body as the model that its field `tag` names. `hints`: of names without a model. Raises InvalidError."""
    value = await parse_json(await read(request, MAX_JSON_BYTES, hint=_SMALL))
    named = value.get(tag) if isinstance(value, dict) else None
    model = models.get(named) if isinstance(named, str) else None
    if model is None:
        detail = f"{tag} must be one of: {', '.join(models)}"
        hint = hints.get(str(named), "/openapi.json has an example of each.")
        raise InvalidError("invalid_request", f"{detail}.", hint=hint, errors=wrong(f"#/{tag}", detail))
    return validate(model, value)
