"""Request bodies: counted while they arrive, read by strict JSON, checked against a model that forbids the unknown."""

import difflib
from collections.abc import AsyncIterator, Mapping
from typing import Any, TypeVar, get_args

import anyio.to_thread
import orjson
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from starlette.requests import Request

from app.problems import BadRequestError, InvalidError, TooLargeError, field_errors, wrong

MAX_JSON_BYTES = 1_000_000  # requests of JSON alone: jobs, aliases
_PARSE_IN_THREAD = 256 * 1024  # bytes from which parsing would be felt by other requests

Model = TypeVar("Model", bound=BaseModel)


def check_length(request: Request, limit: int, *, hint: str) -> None:
    """Refuse by Content-Length, before anything is read. Raises TooLargeError."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise too_large(limit, hint=hint)


def too_large(limit: int, *, hint: str) -> TooLargeError:
    return TooLargeError("body_too_large", f"The body is larger than {limit:,} bytes.", hint=hint)


async def stream(request: Request, limit: int, *, hint: str) -> AsyncIterator[bytes]:
    """The body's pieces as they arrive. Raises TooLargeError as soon as there are more than `limit` bytes."""
    check_length(request, limit, hint=hint)
    total = 0
    async for piece in request.stream():
        total += len(piece)
        if total > limit:
            raise too_large(limit, hint=hint)
        if piece:
            yield piece


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
        text = "; ".join(f"{item['pointer']}: {item['detail']}" for item in errors)
        raise InvalidError("invalid_request", text, hint=_hint(model, details), errors=errors) from error


def _hint(model: type[BaseModel], details: list[ErrorDetails]) -> str:
    """About the object that the first wrong field is in; an unknown field comes before all others."""
    first = min(details, key=lambda detail: detail["type"] != "extra_forbidden")
    for step in first["loc"][:-1]:
        model = _within(model, str(step)) or model
    known = list(model.model_fields)
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1, cutoff=0.5)
        return (f"Did you mean `{near[0]}`? " if near else "") + f"Fields: {', '.join(known)}."
    return f"Fields: {', '.join(known)}; /openapi.json has an example."


def _within(model: type[BaseModel], name: str) -> type[BaseModel] | None:
    """The model of a field, where it is one, perhaps or null."""
    field = model.model_fields.get(name)
    kinds = (field.annotation, *get_args(field.annotation)) if field else ()
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


async def read_model(request: Request, model: type[Model]) -> Model:
    """The JSON body as `model`."""
    body = await read(request, MAX_JSON_BYTES, hint="This request is a small JSON object.")
    return validate(model, await parse_json(body))


async def read_union(
    request: Request, models: Mapping[str, type[Model]], *, tag: str, hints: Mapping[str, str]
) -> Model:
    """The JSON body as the model that its field `tag` names. `hints`: of names without a model. Raises InvalidError."""
    value = await parse_json(await read(request, MAX_JSON_BYTES, hint="This request is a small JSON object."))
    named = value.get(tag) if isinstance(value, dict) else None
    model = models.get(named) if isinstance(named, str) else None
    if model is None:
        detail = f"{tag} must be one of: {', '.join(models)}"
        hint = hints.get(str(named), "/openapi.json has an example of each.")
        raise InvalidError("invalid_request", f"{detail}.", hint=hint, errors=wrong(f"#/{tag}", detail))
    return validate(model, value)
