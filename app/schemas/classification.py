"""The answer of a classification, as OpenAPI shows it; the route itself writes it with orjson."""

from typing import Any

from pydantic import BaseModel, ConfigDict

from app.inference.protocol import ImageError, Label, Notice, Timings

EXAMPLE: dict[str, Any] = {
    "model": "cifar10-resnet20",
    "version": 1,
    "results": [
        {
            "index": 0,
            "filename": "cat.jpg",
            "top_k": [
                {"label": "cat", "class_index": 3, "probability": 0.934},
                {"label": "dog", "class_index": 5, "probability": 0.041},
            ],
            "warnings": [{"code": "exif_rotated", "message": "rotated as its EXIF data says"}],
            "error": None,
        }
    ],
    "timings_ms": {"decode": 0.6, "queue": 0.1, "compute": 1.9, "total": 3.4},
}


class ImageAnswer(BaseModel):
    """One image: its labels, most probable first, or `error`. `index` is its place in the request.

    The others are there where `outputs` asked for them: `probabilities` and `logits` have a value for each class,
    `embedding` is what the network's last layer sees.
    """

    index: int
    filename: str | None = None
    top_k: list[Label]
    probabilities: list[float] | None = None
    logits: list[float] | None = None
    embedding: list[float] | None = None
    warnings: list[Notice]
    error: ImageError | None


class Classification(BaseModel):
    """A result for each image, in the order of the request; `model` and `version` say what has answered."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    model: str
    version: int
    results: list[ImageAnswer]
    timings_ms: Timings
