"""What a network saw of an image, and where in it it saw a class: as pictures, or as JSON."""

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
from app.image_requests import ImagesIn, read_images
from app.problems import InvalidError, ProblemError, wrong
from app.routes.classification import IMAGE_BODY, server_timing
from app.schemas.common import problem_responses
from app.schemas.explanation import EXPLAINED, PREPROCESSED, ExplanationBody, PreprocessedBody
from app.services.explanation import Shown
from app.state import State
from store.keys import Scope

router = APIRouter(tags=["classification"], dependencies=[*needs(Scope.PREDICT), Depends(admitted)])

ClassIndex = Annotated[
    int | None, Query(ge=0, le=1_000_000, description="The class to look for; default: each image's likeliest.")
]

Form = Literal["json", "png"]
_EXPLAIN: dict[str, Form] = {"application/json": "json", "application/*": "json", "*/*": "json"}
_EXPLAIN |= {"image/png": "png", "image/*": "png"}
_PREPROCESS: dict[str, Form] = _EXPLAIN | {"*/*": "png"}

_PNG = {"schema": {"type": "string", "format": "binary"}, "example": "(the bytes of a PNG file)"}
_PROBLEMS = problem_responses(401, 403, 404, 406, 408, 413, 422, 429, 503, 504)


def _answers(model: Any, example: dict[str, Any]) -> dict[int | str, dict[str, Any]]:  # noqa: ANN401 - a pydantic model
    content = {"application/json": {"example": example}, "image/png": _PNG}
    return {200: {"model": model, "content": content}, **_PROBLEMS}


@router.post(
    "/v1/models/{name}:explain",
    responses=_answers(ExplanationBody, EXPLAINED),
    openapi_extra=IMAGE_BODY,
    summary="Where in an image the network saw a class",
)
async def explain(request: Request, state: StateDep, name: ModelRef, class_index: ClassIndex = None) -> Response:
    """Grad-CAM on the last stage: JSON by default, with `Accept: image/png` one image's overlay."""
    form, asked = await _read(request, state, _EXPLAIN)
    work = state.explanation.explain(asked.images, model=name, class_index=class_index, overlay=form == "png")
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


@router.post(
    "/v1/models/{name}:preprocess",
    responses=_answers(PreprocessedBody, PREPROCESSED),
    openapi_extra=IMAGE_BODY,
    summary="What the network sees of an image",
)
async def preprocess(request: Request, state: StateDep, name: ModelRef) -> Response:
    """The very pixels that classification computes with: a PNG file, or with `Accept: application/json` one a result.

    The SHA-256 is of the pixels, uint8 (height, width, channels) in C order, not of the file.
    """
    form, asked = await _read(request, state, _PREPROCESS)
    shown = await unless_gone(request, state.explanation.preprocess(asked.images, model=name))
    if form == "png":
        (result,) = shown.document["results"]
        shape = ", ".join(map(str, result["shape"]))
        return _png(shown, {"X-Pixels-SHA256": result["sha256"], "X-Pixels-Shape": shape})
    for result, file in zip(shown.document["results"], shown.files, strict=True):
        result["png"] = b64encode(file).decode() if file else None
    return _json(shown)


async def _read(request: Request, state: State, forms: dict[str, Form]) -> tuple[Form, ImagesIn]:
    """What to answer with, and the images. A picture is of one image. Raises ProblemError."""
    form = prefer(request.headers.get("accept", ""), forms)
    if form is None:
        detail = "The answer is application/json or image/png."
        raise ProblemError("not_acceptable", detail, hint="Send one of them in Accept.", status=406)
    asked = await read_images(request, state.settings)
    for name in ("top_k", "outputs", "model"):
        if getattr(asked, name) is not None:
            detail = f"`{name}` means nothing here"
            hint = "The address names the model; `class_index` goes into the query."
            raise InvalidError("invalid_request", f"{detail}.", hint=hint, errors=wrong(f"#/{name}", detail))
    if form == "png" and len(asked.images) > 1:
        detail = f"One picture cannot show {len(asked.images)} images."
        raise InvalidError("one_image_only", detail, hint="Send them one by one, or `Accept: application/json`.")
    return form, asked


def _json(shown: Shown) -> Response:
    headers = {"Server-Timing": server_timing(shown.document), "Vary": "Accept"}
    return Response(orjson.dumps(shown.document), media_type="application/json", headers=headers)


def _png(shown: Shown, headers: dict[str, str]) -> Response:
    document = shown.document
    own = {"X-Model": f"{document['model']}@{document['version']}", "Server-Timing": server_timing(document)}
    return Response(shown.files[0], media_type="image/png", headers={**own, "Vary": "Accept", **headers})
