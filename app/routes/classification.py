"""Images in, labels out: by raw body, form or JSON; POST, or the PUT of `curl -T`."""

from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Query, Request, Response

from app.admission import admitted
from app.auth import needs
from app.deps import ModelRef, StateDep
from app.disconnect import unless_gone
from app.image_requests import JsonImages, agreed, naming, outputs_named, read_images
from app.responses import server_timing
from app.schemas.classification import EXAMPLE, Classification
from app.schemas.problems import problem_responses
from app.state import State
from store.keys import Scope

router = APIRouter(tags=["classification"], dependencies=[*needs(Scope.PREDICT), Depends(admitted)])

TopK = Annotated[int | None, Query(ge=1, description="Labels for each image; default 5, at most all classes.")]
Model = Annotated[str | None, Query(max_length=200, description="name, name@3 or name@alias; default: the server's.")]

Outputs = Annotated[
    list[str] | None,
    Query(max_length=20, description="What else of the forward pass, with commas: embedding, logits, probabilities."),
]

BY_DEFAULT, BY_MODEL = "/v1/classify", "/v1/models/{name}:classify"

_BINARY = {"schema": {"type": "string", "format": "binary"}, "example": "(the bytes of cat.jpg)"}
_FILES: dict[str, Any] = {"type": "array", "items": {"type": "string", "format": "binary"}}
_FIELDS: dict[str, Any] = {
    "top_k": {"type": "integer", "minimum": 1},
    "model": {"type": "string"},
    "outputs": {"type": "string"},
}
_JSON: dict[str, Any] = JsonImages.model_json_schema(ref_template="#/components/schemas/{model}")
_JSON.pop("$defs")  # JsonImage is among the document's own
_JSON.pop("examples")  # each body has its own


def image_body(*fields: str) -> dict[str, Any]:
    """OpenAPI's requestBody of images: one raw, or several in a form or in JSON, with these fields beside them."""
    form = {"type": "object", "properties": {"file": _FILES, **{name: _FIELDS[name] for name in fields}}}
    json = {**_JSON, "properties": {name: _JSON["properties"][name] for name in ("images", *fields)}}
    more: dict[str, Any] = {"top_k": 2} if "top_k" in fields else {}
    content: dict[str, Any] = {
        "image/*": _BINARY,
        "multipart/form-data": {"schema": form, "example": {"file": ["(the bytes of cat.jpg)"], **more}},
        "application/json": {"schema": json, "example": {"images": [{"b64": "iVBORw0KGgo…"}], **more}},
    }
    return {"requestBody": {"required": True, "content": content}}


_BODY = image_body("top_k", "model", "outputs")
_BODY_BY_MODEL = image_body("top_k", "outputs")
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"model": Classification, "content": {"application/json": {"example": EXAMPLE}}},
    **problem_responses(404, 409, 504),
}


@router.put(
    BY_DEFAULT,
    responses=_ANSWERS,
    openapi_extra=_BODY,
    operation_id="classify_put",
    summary="Classify images (curl -T)",
)
@router.post(BY_DEFAULT, responses=_ANSWERS, openapi_extra=_BODY, operation_id="classify", summary="Classify images")
async def classify(
    request: Request, state: StateDep, top_k: TopK = None, model: Model = None, outputs: Outputs = None
) -> Response:
    """The top labels of one or more images. Each image has its own result or its own error."""
    return await answer(request, state, top_k, model, outputs)


@router.put(
    BY_MODEL,
    responses=_ANSWERS,
    openapi_extra=_BODY_BY_MODEL,
    operation_id="classify_by_model_put",
    summary="By a model (curl -T)",
)
@router.post(
    BY_MODEL,
    responses=_ANSWERS,
    openapi_extra=_BODY_BY_MODEL,
    operation_id="classify_by_model",
    summary="Classify by a model",
)
async def classify_by(
    request: Request, state: StateDep, name: ModelRef, top_k: TopK = None, outputs: Outputs = None
) -> Response:
    """Like /v1/classify, by the model in the address."""
    return await answer(request, state, top_k, name, outputs)


async def answer(
    request: Request, state: State, top_k: int | None, model: str | None, outputs: list[str] | None
) -> Response:
    """What both routes say. `top_k`, `model` and `outputs` are the address's; the body may say them instead.

    Raises ProblemError.
    """
    wanted = None if outputs is None else outputs_named(outputs, "/query/outputs")
    asked = await read_images(request, state.settings)
    work = state.classification.classify(
        asked.images,
        model=agreed("model", model or None, asked.model or None),
        top_k=agreed("top_k", top_k, asked.top_k),
        outputs=agreed("outputs", wanted, asked.outputs) or (),
    )
    with naming(model, asked.model):
        body, timing = document(await unless_gone(request, work))
    return Response(body, media_type="application/json", headers={"Server-Timing": timing})


def document(found: dict[str, Any]) -> tuple[bytes, str]:
    """The body of an answer in JSON, and its header Server-Timing."""
    return orjson.dumps(found, option=orjson.OPT_SERIALIZE_NUMPY), server_timing(found["timings_ms"])
