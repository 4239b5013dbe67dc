"""What a network saw, and where it looked: the answers of `:preprocess` and `:explain` in the API's shape."""

import time
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from app.inference.answers import Explanations, Pictures
from app.inference.client import Engines
from app.inference.errors import InferenceError
from app.inference.protocol import ImageExplanation
from app.services.classification import ImageIn, all_bad, merge, problem_of
from models.catalog import ModelNotFound

_NOTHING_EXPLAINED: dict[str, Any] = dict.fromkeys(("label", "class_index", "probability", "heatmap"))
_NOTHING_SEEN: dict[str, Any] = dict.fromkeys(("shape", "sha256"))

Answered = TypeVar("Answered", Explanations, Pictures)


@dataclass(frozen=True)
class Shown:
    """`document` is the answer as JSON; `files[i]` is image i as PNG, empty where there is none."""

    document: dict[str, Any]
    files: tuple[bytes, ...]


class Explanation:
    def __init__(self, engines: Engines, *, timeout: float) -> None:
        self._engines = engines
        self._timeout = timeout

    async def explain(
        self, images: list[ImageIn], *, model: str | None, class_index: int | None, overlay: bool
    ) -> Shown:
        """Grad-CAM of each image; `model` None is the default. Raises ProblemError, also where every image is bad."""
        started = time.perf_counter()
        files = _files(images)
        work = self._engines.explain(model, files, class_index=class_index, overlay=overlay, timeout=self._timeout)
        answer = await _asked(work)
        answered = [_explained(result) for result in answer.results]
        return _shown(answer, images, answered, answer.overlays, absent=_NOTHING_EXPLAINED, started=started)

    async def preprocess(self, images: list[ImageIn], *, model: str | None) -> Shown:
        """The pixels that the network gets of each image. Raises ProblemError, also where every image is bad."""
        started = time.perf_counter()
        answer = await _asked(self._engines.preprocess(model, _files(images), timeout=self._timeout))
        answered = [
            result.model_dump() if result.error is None else result.model_dump() | _NOTHING_SEEN
            for result in answer.results
        ]
        return _shown(answer, images, answered, answer.files, absent=_NOTHING_SEEN, started=started)


def _files(images: list[ImageIn]) -> list[bytes]:
    """What the engine gets. Raises ProblemError where that is nothing."""
    files = [image.data for image in images if image.error is None]
    if not files:
        raise all_bad(merge(images, [], absent={}))
    return files


async def _asked(work: Awaitable[Answered]) -> Answered:
    try:
        return await work
    except (ModelNotFound, InferenceError) as error:
        raise problem_of(error) from error


def _explained(result: ImageExplanation) -> dict[str, Any]:
    said = result.model_dump(include={"warnings", "error"})
    if result.label is None:
        return _NOTHING_EXPLAINED | said
    return {**result.label.model_dump(), "heatmap": result.heatmap, **said}


def _shown(
    answer: Answered,
    images: list[ImageIn],
    answered: list[dict[str, Any]],
    files: Sequence[bytes],
    *,
    absent: Mapping[str, Any],
    started: float,
) -> Shown:
    results = merge(images, answered, absent=absent)
    if all(result["error"] for result in results):
        raise all_bad(results)
    total = round((time.perf_counter() - started) * 1000, 3)
    document = {
        "model": answer.model,
        "version": answer.version,
        "results": results,
        "timings_ms": {**answer.timings_ms.model_dump(), "total": total},
    }
    ready = iter(files)
    return Shown(document, tuple(next(ready) if image.error is None else b"" for image in images))
