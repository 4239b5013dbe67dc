"""Models as answers show them, and what may be said of one that is brought."""

import unicodedata
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from app.inference.routes import EngineState
from app.schemas.aliases import AliasName
from models.manifest import Calibration, Lineage, Name, NetworkSpec, Preprocessing
from store import class_names

SUMMARY_EXAMPLE: dict[str, Any] = {
    "name": "cifar10-resnet20",
    "latest": 1,
    "version_count": 1,
    "aliases": {"production": 1},
}
VERSION_EXAMPLE: dict[str, Any] = {
    "version": 1,
    "aliases": ["production"],
    "network": {"name": "cifar/resnet20", "num_classes": 10, "in_channels": 3},
    "parameters": 269722,
    "classes": ["airplane", "automobile"],
    "preprocessing": {
        "channels": 3,
        "height": 32,
        "width": 32,
        "resize": 32,
        "interpolation": "bilinear",
        "mean": [0.49, 0.48, 0.45],
        "std": [0.25, 0.24, 0.26],
    },
    "test_time_flip": True,
    "metrics": {"top1": 0.914},
    "calibration": {"temperature": 1.3},
    "lineage": {
        "job": "job_8d3f21aa",
        "dataset": "ds_5c9a6f0d",
        "dataset_name": "cifar10",
        "dataset_digest": "sha256:" + "0123456789abcdef" * 4,
        "recipe": "cifar10-resnet20",
        "seed": 0,
        "code_version": "0.1.0",
        "created_at": "2026-01-31T12:00:00Z",
        "origin": None,
    },
    "weights_sha256": "0123456789abcdef" * 4,
    "golden_sha256": "0123456789abcdef" * 4,
}
LOADED_EXAMPLE: dict[str, Any] = {
    "version": 1,
    "state": "ready",
    "device": "cpu",
    "reason": None,
    "runtime": None,
}


class ModelSummary(BaseModel):
    """A model; `aliases` are what its aliases point to."""

    model_config = ConfigDict(json_schema_extra={"examples": [SUMMARY_EXAMPLE]})

    name: str
    latest: int
    version_count: int
    aliases: dict[str, int]


class ModelVersion(BaseModel):
    """An immutable version: what it is, how good it is, and where it came from."""

    version: int
    aliases: list[str]
    network: NetworkSpec
    parameters: int
    classes: list[str]
    preprocessing: Preprocessing
    test_time_flip: bool
    metrics: dict[str, Any]
    calibration: Calibration | None
    lineage: Lineage
    weights_sha256: str
    golden_sha256: str


class LoadedVersion(BaseModel):
    """A version that has an engine. `runtime`: what it computes with and how fast that was at load."""

    version: int
    state: EngineState
    device: str
    reason: str | None
    runtime: dict[str, Any] | None


class ModelBody(ModelSummary):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{**SUMMARY_EXAMPLE, "versions": [VERSION_EXAMPLE], "loaded": [LOADED_EXAMPLE]}]}
    )

    versions: list[ModelVersion]
    loaded: list[LoadedVersion]


class LoadBody(BaseModel):
    """How far a version is with being loaded or unloaded."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"model": "fashion", **LOADED_EXAMPLE}]})

    model: str
    version: int
    state: EngineState | Literal["unloaded"]
    device: str | None
    reason: str | None
    runtime: dict[str, Any] | None


class LabelsBody(BaseModel):
    """`labels[i]` is the name of class index i."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"model": "fashion", "version": 3, "labels": ["t-shirt", "trouser"]}]}
    )

    model: str
    version: int
    labels: list[str]


class ModelMetricsBody(BaseModel):
    """What the version's evaluation gave; `metrics` is empty where it was not evaluated here."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"model": "fashion", "version": 3, "metrics": {"top1": 0.914}, "temperature": 1.3}]
        }
    )

    model: str
    version: int
    metrics: dict[str, Any]
    temperature: float | None


_Positive = Annotated[float, Field(gt=0)]


class PreprocessingRequest(BaseModel):
    """Fields of a model's preprocessing with other values than its family's."""

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra={"examples": [{"resize": 232}]})

    height: int = Field(224, ge=1, le=1024)
    width: int = Field(224, ge=1, le=1024)
    resize: int = Field(256, ge=1, le=2048)
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    mean: tuple[float, ...] = Field((0.485, 0.456, 0.406), min_length=1, max_length=3)
    std: tuple[_Positive, ...] = Field((0.229, 0.224, 0.225), min_length=1, max_length=3)


class AdoptRequest(BaseModel):
    """What may be said of an uploaded model. Its network is told by its tensors where it is not named."""

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra={"examples": [{"name": "mine"}]})

    name: Name
    alias: AliasName | None = None
    network: str | None = None
    classes: tuple[Annotated[str, Field(min_length=1, max_length=class_names.LONGEST)], ...] | None = Field(
        None, min_length=2, max_length=class_names.MOST
    )
    preprocessing: PreprocessingRequest | None = None

    @field_validator("classes")
    @classmethod
    def _distinct(cls, classes: tuple[str, ...] | None) -> tuple[str, ...] | None:
        """In Unicode form NFC, as datasets have the names of their classes."""
        if classes is None:
            return None
        named = tuple(unicodedata.normalize("NFC", name) for name in classes)
        if reason := class_names.unclear(named):
            raise ValueError(reason)
        return named
