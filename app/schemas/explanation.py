"""The answers of `:explain` and `:preprocess`, as OpenAPI shows them."""

from typing import Any

from pydantic import BaseModel, ConfigDict

from app.inference.protocol import ImageError, Notice, Timings

_TIMINGS = {"decode": 0.6, "queue": 0.0, "compute": 6.2, "total": 7.5}
EXPLAINED: dict[str, Any] = {
    "model": "cifar10-resnet20",
    "version": 1,
    "results": [
        {
            "index": 0,
            "filename": "cat.jpg",
            "label": "cat",
            "class_index": 3,
            "probability": 0.934,
            "heatmap": [[0.0, 0.12], [0.71, 1.0]],
            "warnings": [],
            "error": None,
        }
    ],
    "timings_ms": _TIMINGS,
}
PREPROCESSED: dict[str, Any] = {
    "model": "cifar10-resnet20",
    "version": 1,
    "results": [
        {
            "index": 0,
            "filename": "cat.jpg",
            "shape": [32, 32, 3],
            "sha256": "0123456789abcdef" * 4,
            "warnings": [{"code": "exif_rotated", "message": "rotated as its EXIF data says"}],
            "error": None,
            "png": "iVBORw0KGgo…",
        }
    ],
    "timings_ms": _TIMINGS,
}


class _Image(BaseModel):
    index: int
    filename: str | None = None
    warnings: list[Notice]
    error: ImageError | None


class ExplainedImage(_Image):
    """`heatmap` has a row for each row of cells of the network's last stage, 0 to 1; stretch it over the image."""

    label: str | None
    class_index: int | None
    probability: float | None
    heatmap: list[list[float]] | None


class PreprocessedImage(_Image):
    """`shape` is (height, width, channels); `sha256` is of those bytes, `png` (base64) the same pixels as a file."""

    shape: list[int] | None
    sha256: str | None
    png: str | None


class _Body(BaseModel):
    model: str
    version: int
    timings_ms: Timings


class ExplanationBody(_Body):
    model_config = ConfigDict(json_schema_extra={"examples": [EXPLAINED]})

    results: list[ExplainedImage]


class PreprocessedBody(_Body):
    model_config = ConfigDict(json_schema_extra={"examples": [PREPROCESSED]})

    results: list[PreprocessedImage]
