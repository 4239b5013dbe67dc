"""A model upload from a request to disk: a raw body with query parameters, or a form with the same as fields."""

import math
from collections.abc import Mapping
from typing import Any

import anyio
import anyio.to_thread
import orjson
from starlette.requests import Request

from app import bodies
from app.form_files import MAX_FORM_OVERHEAD, TERM_FIELDS, copy, read_form, terms_of
from app.problems import InvalidError, wrong
from app.schemas.models import AdoptRequest
from app.services.adoptions import Adoptions
from app.services.jobs import Placed
from models.nearest import nearest
from models.networks.registry import NETWORKS
from store.settings import Settings

# The fields of a form, and the most bytes of each; so many classes' names are a megabyte.
_FIELDS = {"name": 256, "alias": 256, "network": 256, "preprocessing": 4096, "classes": 1_000_000}
_EXAMPLE = "curl -F name=mine -F classes=@classes.txt -F file=@model.safetensors …"


async def receive(
    request: Request,
    adoptions: Adoptions,
    settings: Settings,
    *,
    query: Mapping[str, str | None],
    terms: Mapping[str, object],
    key: str | None,
) -> Placed:
    """Raises ProblemError; a client that goes away midway raises ClientDisconnect. Either way the part is removed."""
    hint = f"RESNETD_MAX_MODEL_BYTES is {settings.max_model_bytes:,}."
    content_type = request.headers.get("content-type", "")
    is_form = content_type.partition(";")[0].strip().lower() == "multipart/form-data"
    limit = settings.max_model_bytes + (MAX_FORM_OVERHEAD + sum(_FIELDS.values()) if is_form else 0)
    bodies.check_length(request, limit, hint=hint)
    given = {name: value for name, value in query.items() if value is not None}
    asked = None if is_form else checked(given, place="/query")
    fields: dict[str, str] = {}
    upload = await adoptions.begin(idempotency_key=key, announced=bodies.announced(request))
    try:
        pieces = bodies.stream(request, limit, hint=hint, seconds=math.inf)
        filename = None
        if is_form:
            known = _FIELDS | TERM_FIELDS
            fields, filename = await read_form(pieces, content_type, upload, fields=known, example=_EXAMPLE)
        else:
            await copy(pieces, upload)
        with_terms = terms_of(terms, fields)
        if asked is None:
            asked = checked({**fields, **given}, place="#")
        return await adoptions.accept(upload, asked=asked, filename=filename, terms=with_terms)
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(upload.close)


def checked(given: Mapping[str, str], *, place: str) -> dict[str, Any]:
    """What the job is asked. Raises InvalidError, which points at the field and names the nearest network."""
    values: dict[str, Any] = dict(given)
    if "classes" in values:
        values["classes"] = _classes(values["classes"], place)
    if "preprocessing" in values:
        values["preprocessing"] = _json(values["preprocessing"], f"{place}/preprocessing")
    if "name" not in values:
        raise _invalid(f"{place}/name", "the model needs a name", "Send ?name=…, or the form's field `name`.")
    network = values.get("network")
    if network is not None and network not in NETWORKS:
        detail = f"no network is called {network[:80]!r}"
        hint = f"The nearest is {nearest(network, NETWORKS)!r}; GET /v1/architectures lists all."
        raise _invalid(f"{place}/network", detail, hint)
    request = bodies.validate(AdoptRequest, values)
    return {"register_as": request.name, **request.model_dump(mode="json", exclude={"name"}, exclude_unset=True)}


def _classes(text: str, place: str) -> list[str]:
    """Names from a JSON list, or one a line."""
    text = text.strip()
    if text.startswith("["):
        found = _json(text, f"{place}/classes")
        return found if isinstance(found, list) else []
    return [line.strip() for line in text.splitlines() if line.strip()]


def _json(text: str, pointer: str) -> Any:  # noqa: ANN401 - anything that JSON can hold
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise _invalid(pointer, f"it is not JSON: {error}", 'For example classes=["cat","dog"]') from error


def _invalid(pointer: str, detail: str, hint: str) -> InvalidError:
    return InvalidError("invalid_request", f"{pointer}: {detail}.", hint=hint, errors=wrong(pointer, detail))
