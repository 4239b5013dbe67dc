"""Images in, labels out: by raw body, form or JSON; POST, or the PUT of `curl -T`."""

from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Query, Request, Response

from app.admission import admitted
from app.auth import needs
from app.deps import ModelRef, StateDep
from app.disconnect import unless_gone
from app.image_requests import JsonImages, outputs_named, read_images
from app.schemas.classification import EXAMPLE, Classification
from app.schemas.common import problem_responses
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
_FORM: dict[str, Any] = {
    "schema": {
        "type": "object",
        "properties": {
            "file": {"type": "array", "items": {"type": "string", "format": "binary"}},
            "top_k": {"type": "integer", "minimum": 1},
            "model": {"type": "string"},
            "outputs": {"type": "string"},
        },
    },
    "example": {"file": ["(the bytes of cat.jpg)", "(the bytes of dog.png)"], "top_k": 2},
}
_JSON: dict[str, Any] = {
    "schema": JsonImages.model_json_schema(ref_template="#/components/schemas/{model}"),
    "example": {"images": [{"b64": "iVBORw0KGgo…"}], "top_k": 2},
}
_JSON["schema"]["properties"]["images"]["items"] = _JSON["schema"].pop("$defs")["JsonImage"]
IMAGE_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "image/*": _BINARY,
            "multipart/form-data": {
                "schema": {"type": "object", "properties": {"file": _FORM["schema"]["properties"]["file"]}},
                "example": {"file": ["(the bytes of cat.jpg)"]},
            },
            "application/json": {**_JSON, "example": {"images": [{"b64": "iVBORw0KGgo…"}]}},
        },
    }
}
_BODY = {
    "requestBody": {
        "required": True,
        "content": {"image/*": _BINARY, "multipart/form-data": _FORM, "application/json": _JSON},
    }
}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"model": Classification, "content": {"application/json": {"example": EXAMPLE}}},
    **problem_responses(401, 403, 404, 408, 413, 422, 429, 503, 504),
}


@router.put(BY_DEFAULT, responses=_ANSWERS, openapi_extra=_BODY, summary="Classify images (curl -T)")
@router.post(BY_DEFAULT, responses=_ANSWERS, openapi_extra=_BODY, summary="Classify images")
async def classify(
    request: Request, state: StateDep, top_k: TopK = None, model: Model = None, outputs: Outputs = None
) -> Response:
    """The top labels of one or more images. Each image has its own result or its own error."""
    return await answer(request, state, top_k, model, outputs)


@router.put(BY_MODEL, responses=_ANSWERS, openapi_extra=_BODY, summary="By a model (curl -T)")
@router.post(BY_MODEL, responses=_ANSWERS, openapi_extra=_BODY, summary="Classify by a model")
async def classify_by(
    request: Request, state: StateDep, name: ModelRef, top_k: TopK = None, outputs: Outputs = None
) -> Response:
    """Like /v1/classify, by the model in the address."""
    return await answer(request, state, top_k, name, outputs)


async def answer(
    request: Request, state: State, top_k: int | None, model: str | None, outputs: list[str] | None
) -> Response:
    """What both routes say. `top_k`, `model` and `outputs`: before what the body says. Raises ProblemError."""
    wanted = None if outputs is None else outputs_named(outputs, "/query/outputs")
    asked = await read_images(request, state.settings)
    work = state.classification.classify(
        asked.images,
        model=model or asked.model,
        top_k=top_k or asked.top_k,
        outputs=(asked.outputs or ()) if wanted is None else wanted,
    )
    answer = await unless_gone(request, work)
    body = orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, media_type="application/json", headers={"Server-Timing": server_timing(answer)})


def server_timing(answer: dict[str, Any]) -> str:
    return ", ".join(f"{stage};dur={value}" for stage, value in answer["timings_ms"].items())
