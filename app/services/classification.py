"""Classification: images in, the engine's answer out in the API's shape."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from app.inference.answers import Classified, Tensor
from app.inference.client import Engines
from app.inference.errors import (
    DeadlineExceeded,
    EngineOverloaded,
    EngineStarting,
    EngineUnavailable,
    InferenceError,
    RequestRefused,
    TooManyLabels,
)
from app.inference.protocol import ImageError, Output
from app.problems import (
    DeadlineError,
    FieldError,
    InvalidError,
    NotFoundError,
    ProblemError,
    TooLargeError,
    UnavailableError,
)
from app.services.models import damaged
from models.catalog import ModelNotFound
from models.manifest import ModelDamagedError

DEFAULT_TOP_K = 5
MAX_TOP_K = 100_000  # beyond any number of classes; the engine clamps to the model's


@dataclass(frozen=True)
class ImageIn:
    """One image's file, or why it was not taken."""

    data: bytes
    filename: str | None = None
    error: ImageError | None = None


class Classification:
    def __init__(self, engines: Engines, *, timeout: float) -> None:
        self._engines = engines
        self._timeout = timeout

    async def classify(
        self, images: list[ImageIn], *, model: str | None, top_k: int | None, outputs: Sequence[Output] = ()
    ) -> dict[str, Any]:
        """`{"model", "version", "results", "timings_ms"}`; each of `outputs` is an array (D,) in every good result.

        Raises ProblemError, also where every image is bad.
        """
        started = time.perf_counter()
        taken = [image for image in images if image.error is None]
        answer = await self._ask(model, taken, min(top_k or DEFAULT_TOP_K, MAX_TOP_K), outputs) if taken else None
        answered = [] if answer is None else answer.rows
        if answer is not None:
            _attach(answered, answer.tensors)
        results = merge(images, answered, absent={"top_k": [], **dict.fromkeys(map(str, outputs))})
        if all(result["error"] for result in results):
            raise all_bad(results)
        assert answer is not None  # noqa: S101 - some image has no error, so the engine was asked
        timings = answer.timings_ms
        return {
            "model": answer.model,
            "version": answer.version,
            "results": results,
            "timings_ms": {
                "decode": round(timings.decode, 3),
                "queue": round(timings.queue, 3),
                "compute": round(timings.compute, 3),
                "total": round((time.perf_counter() - started) * 1000, 3),
            },
        }

    async def _ask(self, model: str | None, images: list[ImageIn], top_k: int, outputs: Sequence[Output]) -> Classified:
        try:
            return await self._engines.classify(
                model, [image.data for image in images], top_k=top_k, outputs=outputs, timeout=self._timeout
            )
        except (ModelNotFound, InferenceError) as error:
            raise problem_of(error) from error
        except ModelDamagedError as error:  # not the framework's to tell: it may not be asked (`app/door.py`)
            raise damaged(error) from error


def problem_of(error: ModelNotFound | InferenceError) -> ProblemError:
    """What the client is told of an engine's refusal."""
    if isinstance(error, ModelNotFound):
        return NotFoundError("model_not_found", f"{error}.", hint=error.hint)
    if isinstance(error, DeadlineExceeded):
        hint = "Send fewer images at once, or ask again later; RESNETD_REQUEST_TIMEOUT_SECONDS is the limit."
        return DeadlineError("deadline_exceeded", f"{error}.", hint=hint)
    if isinstance(error, TooManyLabels):
        hint = f"Ask with a top_k of {error.most:,} at most, or with fewer images at once."
        return InvalidError("too_many_labels", f"{error}.", hint=hint)
    if isinstance(error, RequestRefused):
        return InvalidError("invalid_request", f"{error}.", hint="GET /v1/models/{name} shows what the model takes.")
    for kind, code, hint in _COME_BACK:
        if isinstance(error, kind):
            return UnavailableError(code, f"{error}.", hint=hint, retry_after=error.retry_after or 5)
    return ProblemError("engine_failed", f"{error}.", hint="The engine's log has the reason.")


_COME_BACK: tuple[tuple[type[InferenceError], str, str], ...] = (
    (EngineOverloaded, "overloaded", "Ask again later, slower."),
    (EngineStarting, "model_loading", "Ask again soon."),
    (EngineUnavailable, "engine_unavailable", "/readyz says more."),
)


def array_of(tensor: Tensor) -> npt.NDArray[np.float32]:
    """An engine's tensor, not copied."""
    return np.frombuffer(tensor.data, np.float32).reshape(tensor.shape)


def _attach(answered: list[dict[str, Any]], tensors: dict[Output, Tensor]) -> None:
    """Put each tensor's rows into the results that they are of: those without an error, in order."""
    for name, tensor in tensors.items():
        rows = iter(array_of(tensor))
        for result in answered:
            result[name.value] = next(rows) if result["error"] is None else None


def merge(images: list[ImageIn], answered: list[dict[str, Any]], *, absent: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The engine's results put back among the images that never reached it; each under its place in the request.

    `absent` are the members that a result has, with their values for an image that did not get there.
    """
    ready = iter(answered)
    merged: list[dict[str, Any]] = []
    for index, image in enumerate(images):
        result = next(ready) if image.error is None else {**absent, "warnings": [], "error": image.error.model_dump()}
        name = {} if image.filename is None else {"filename": image.filename}
        merged.append({"index": index, **name, **{key: result[key] for key in (*absent, "warnings", "error")}})
    return merged


def all_bad(results: list[dict[str, Any]]) -> ProblemError:
    """413 for one image alone that is too large, else 422; 500 where the engine is at fault."""
    errors: list[FieldError] = [
        {"pointer": f"#/images/{result['index']}", "detail": f"{result['error']['code']}: {result['error']['message']}"}
        for result in results
    ]
    first = results[0]["error"]
    codes = {result["error"]["code"] for result in results}
    code = codes.pop() if len(codes) == 1 else "no_usable_image"
    if code == "internal":
        return ProblemError("engine_failed", first["message"], hint=first["hint"], errors=errors)
    alone = len(results) == 1
    detail = first["message"] if alone else f"None of the {len(results)} images can be classified."
    kind = TooLargeError if alone and code == "image_too_large" else InvalidError
    return kind(code, detail, hint=first["hint"], errors=errors)
