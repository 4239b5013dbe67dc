"""What a network saw of an image, and where in it it saw a class: as pictures, or as JSON.

By POST, or the PUT of `curl -T`.
"""

from base64 import b64encode
from typing import Annotated, Any, Literal
from urllib.parse import quote

import orjson
from fastapi import APIRouter, Depends, Query, Request, Response

from app.accept import prefer
from app.admission import admitted
from app.auth import needs
from app.deps import ModelRef, StateDep
from app.disconnect import unless_gone
from app.image_requests import ImagesIn, agreed, naming, read_images
from app.problems import InvalidError, NotAcceptableError, wrong
from app.responses import server_timing
from app.routes.classification import Model, image_body
from app.schemas.explanation import EXPLAINED, PREPROCESSED, ExplanationBody, PreprocessedBody
from app.schemas.problems import problem_responses
from app.services.explanation import Shown
from app.state import State
from store.keys import Scope

router = APIRouter(tags=["classification"], dependencies=[*needs(Scope.PREDICT), Depends(admitted)])

ClassIndex = Annotated[
    int | None, Query(ge=0, le=1_000_000, description="The class to look for; default: each image's likeliest.")
]

Form = Literal["json", "png"]
_EXPLAIN: dict[str, Form] = {"application/json": "json", "image/png": "png"}
_PREPROCESS: dict[str, Form] = {"image/png": "png", "application/json": "json"}

_PNG = {"schema": {"type": "string", "format": "binary"}, "example": "(the bytes of a PNG file)"}
_PROBLEMS = problem_responses(404, 406, 409, 504)


def _header(description: str, example: str) -> dict[str, Any]:
    return {"description": f"Of a picture: {description}.", "schema": {"type": "string"}, "example": example}


_MODEL = {"X-Model": _header("the model and its version", "cifar10-resnet20@1")}
_CLASS = {
    "X-Class-Index": _header("the class that it is of", "3"),
    "X-Class-Label": _header("its label, percent-encoded", "cat"),
    "X-Probability": _header("its probability", "0.934000"),
}
_PIXELS = {
    "X-Pixels-SHA256": _header("the SHA-256 of its pixels", "0123456789abcdef" * 4),
    "X-Pixels-Shape": _header("their height, width and channels", "32, 32, 3"),
}


def _described(model: Any, example: dict[str, Any], headers: dict[str, Any], *fields: str) -> dict[str, Any]:  # noqa: ANN401 - a pydantic model
    """How OpenAPI describes a route that answers so; `fields` may stand in the body beside the images."""
    content = {"application/json": {"example": example}, "image/png": _PNG}
    answers: dict[int | str, dict[str, Any]] = {
        200: {"model": model, "content": content, "headers": {**_MODEL, **headers}},
        **_PROBLEMS,
    }
    return {"responses": answers, "openapi_extra": image_body(*fields)}


_EXPLAINED = _described(ExplanationBody, EXPLAINED, _CLASS, "model")
_EXPLAINED_BY = _described(ExplanationBody, EXPLAINED, _CLASS)
_PREPROCESSED = _described(PreprocessedBody, PREPROCESSED, _PIXELS, "model")
_PREPROCESSED_BY = _described(PreprocessedBody, PREPROCESSED, _PIXELS)


@router.put("/v1/explain", **_EXPLAINED, operation_id="explain_put", summary="Where in an image a class is (curl -T)")
@router.post("/v1/explain", **_EXPLAINED, operation_id="explain", summary="Where in an image the network saw a class")
async def explain(request: Request, state: StateDep, class_index: ClassIndex = None, model: Model = None) -> Response:
    """Grad-CAM on the last stage: JSON by default, with `Accept: image/png` one image's overlay."""
    return await _explained(request, state, model, class_index)


@router.put(
    "/v1/models/{name}:explain",
    **_EXPLAINED_BY,
    operation_id="explain_by_model_put",
    summary="Where a model saw a class (curl -T)",
)
@router.post(
    "/v1/models/{name}:explain",
    **_EXPLAINED_BY,
    operation_id="explain_by_model",
    summary="Where in an image a model saw a class",
)
async def explain_by(request: Request, state: StateDep, name: ModelRef, class_index: ClassIndex = None) -> Response:
    """Like /v1/explain, by the model in the address."""
    return await _explained(request, state, name, class_index)


@router.put("/v1/preprocess", **_PREPROCESSED, operation_id="preprocess_put", summary="What the network sees (curl -T)")
@router.post("/v1/preprocess", **_PREPROCESSED, operation_id="preprocess", summary="What the network sees of an image")
async def preprocess(request: Request, state: StateDep, model: Model = None) -> Response:
    """The very pixels that classification computes with: a PNG file, or with `Accept: application/json` one a result.

    The SHA-256 is of the pixels, uint8 (height, width, channels) in C order, not of the file.
    """
    return await _preprocessed(request, state, model)


@router.put(
    "/v1/models/{name}:preprocess",
    **_PREPROCESSED_BY,
    operation_id="preprocess_by_model_put",
    summary="What a model sees (curl -T)",
)
@router.post(
    "/v1/models/{name}:preprocess",
    **_PREPROCESSED_BY,
    operation_id="preprocess_by_model",
    summary="What a model sees of an image",
)
async def preprocess_by(request: Request, state: StateDep, name: ModelRef) -> Response:
    """Like /v1/preprocess, by the model in the address."""
    return await _preprocessed(request, state, name)


async def _explained(request: Request, state: State, model: str | None, class_index: int | None) -> Response:
    form, asked, chosen = await _read(request, state, _EXPLAIN, model)
    work = state.explanation.explain(asked.images, model=chosen, class_index=class_index, overlay=form == "png")
    with naming(model, asked.model):
        shown = await unless_gone(request, work)
    if form == "png":
        (result,) = shown.document["results"]
        headers = {
            "X-Class-Index": str(result["class_index"]),
            "X-Class-Label": quote(result["label"]),
            "X-Probability": f"{result['probability']:.6f}",
        }
        return _png(shown, headers)
    return _json(shown)


async def _preprocessed(request: Request, state: State, model: str | None) -> Response:
    form, asked, chosen = await _read(request, state, _PREPROCESS, model)
    with naming(model, asked.model):
        shown = await unless_gone(request, state.explanation.preprocess(asked.images, model=chosen))
    if form == "png":
        (result,) = shown.document["results"]
        shape = ", ".join(map(str, result["shape"]))
        return _png(shown, {"X-Pixels-SHA256": result["sha256"], "X-Pixels-Shape": shape})
    for result, file in zip(shown.document["results"], shown.files, strict=True):
        result["png"] = b64encode(file).decode() if file else None
    return _json(shown)


async def _read(
    request: Request, state: State, forms: dict[str, Form], model: str | None
) -> tuple[Form, ImagesIn, str | None]:
    """What to answer with, the body, and who is asked: `model`, or whom the body names. A picture is of one image.

    Raises ProblemError.
    """
    form = prefer(request.headers.get("accept", ""), forms)
    if form is None:
        detail = "The answer is application/json or image/png."
        raise NotAcceptableError(detail, hint="Send one of them in Accept.")
    asked = await read_images(request, state.settings)
    for name in ("top_k", "outputs"):
        if getattr(asked, name) is not None:
            detail = f"`{name}` means nothing here"
            hint = "The body holds images, and may name the `model`; `class_index` goes into the query."
            raise InvalidError("invalid_request", f"{detail}.", hint=hint, errors=wrong(f"#/{name}", detail))
    chosen = agreed("model", model or None, asked.model or None)
    if form == "png" and len(asked.images) > 1:
        detail = f"One picture cannot show {len(asked.images)} images."
        raise InvalidError("one_image_only", detail, hint="Send them one by one, or `Accept: application/json`.")
    return form, asked, chosen


def _json(shown: Shown) -> Response:
    headers = {"Server-Timing": server_timing(shown.document["timings_ms"]), "Vary": "Accept"}
    return Response(orjson.dumps(shown.document), media_type="application/json", headers=headers)


def _png(shown: Shown, headers: dict[str, str]) -> Response:
    document = shown.document
    own = {
        "X-Model": f"{document['model']}@{document['version']}",
        "Server-Timing": server_timing(document["timings_ms"]),
    }
    return Response(shown.files[0], media_type="image/png", headers={**own, "Vary": "Accept", **headers})
