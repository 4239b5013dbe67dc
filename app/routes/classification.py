"""Images in, labels out: by raw body, form or JSON; POST, or the PUT of `curl -T`."""

import asyncio
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request, Response
from starlette.requests import ClientDisconnect

from app.auth import needs
from app.deps import ModelRef, StateDep
from app.image_requests import JsonImages, read_images
from app.schemas.classification import EXAMPLE, Classification
from app.schemas.common import problem_responses
from app.state import State
from store.keys import Scope

router = APIRouter(tags=["classification"], dependencies=needs(Scope.PREDICT))

TopK = Annotated[int | None, Query(ge=1, description="Labels for each image; default 5, at most all classes.")]
Model = Annotated[str | None, Query(max_length=200, description="name, name@3 or name@alias; default: the server's.")]

_BINARY = {"schema": {"type": "string", "format": "binary"}, "example": "(the bytes of cat.jpg)"}
_FORM = {
    "schema": {
        "type": "object",
        "properties": {
            "file": {"type": "array", "items": {"type": "string", "format": "binary"}},
            "top_k": {"type": "integer", "minimum": 1},
            "model": {"type": "string"},
        },
    },
    "example": {"file": ["(the bytes of cat.jpg)", "(the bytes of dog.png)"], "top_k": 2},
}
_JSON: dict[str, Any] = {
    "schema": JsonImages.model_json_schema(ref_template="#/components/schemas/{model}"),
    "example": {"images": [{"b64": "iVBORw0KGgo…"}], "top_k": 2},
}
_JSON["schema"]["properties"]["images"]["items"] = _JSON["schema"].pop("$defs")["JsonImage"]
_BODY = {
    "requestBody": {
        "required": True,
        "content": {"image/*": _BINARY, "multipart/form-data": _FORM, "application/json": _JSON},
    }
}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"model": Classification, "content": {"application/json": {"example": EXAMPLE}}},
    **problem_responses(401, 403, 404, 413, 422, 503, 504),
}


@router.put("/v1/classify", responses=_ANSWERS, openapi_extra=_BODY, summary="Classify images (curl -T)")
@router.post("/v1/classify", responses=_ANSWERS, openapi_extra=_BODY, summary="Classify images")
async def classify(request: Request, state: StateDep, top_k: TopK = None, model: Model = None) -> Response:
    """The top labels of one or more images. Each image has its own result or its own error."""
    return await _answer(request, state, top_k, model)


@router.put("/v1/models/{name}:classify", responses=_ANSWERS, openapi_extra=_BODY, summary="By a model (curl -T)")
@router.post("/v1/models/{name}:classify", responses=_ANSWERS, openapi_extra=_BODY, summary="Classify by a model")
async def classify_by(request: Request, state: StateDep, name: ModelRef, top_k: TopK = None) -> Response:
    """Like /v1/classify, by the model in the address."""
    return await _answer(request, state, top_k, name)


async def _answer(request: Request, state: State, top_k: int | None, model: str | None) -> Response:
    asked = await read_images(request, state.settings)
    work = state.classification.classify(asked.images, model=model or asked.model, top_k=top_k or asked.top_k)
    answer = await _unless_gone(request, work)
    timings = ", ".join(f"{stage};dur={value}" for stage, value in answer["timings_ms"].items())
    return Response(orjson.dumps(answer), media_type="application/json", headers={"Server-Timing": timings})


async def _unless_gone(request: Request, work: Any) -> dict[str, Any]:  # noqa: ANN401 - a coroutine
    """The result of `work`, which is dropped when the client hangs up. Raises ClientDisconnect."""
    working = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(request.receive())  # the body is read: the next message is the disconnect
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        result: dict[str, Any] = working.result()
        return result
    finally:
        working.cancel()
        gone.cancel()
