from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from models.manifest import Calibration, Lineage, NetworkSpec, Preprocessing

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
    },
    "weights_sha256": "0123456789abcdef" * 4,
    "golden_sha256": "0123456789abcdef" * 4,
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
    metrics: dict[str, Any]
    calibration: Calibration | None
    lineage: Lineage
    weights_sha256: str
    golden_sha256: str


class ModelBody(ModelSummary):
    model_config = ConfigDict(json_schema_extra={"examples": [{**SUMMARY_EXAMPLE, "versions": [VERSION_EXAMPLE]}]})

    versions: list[ModelVersion]


class AliasRequest(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra={"examples": [{"version": 1}]})

    version: int = Field(ge=1)


class AliasBody(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "cifar10-resnet20", "alias": "production", "version": 1}]}
    )

    name: str
    alias: str
    version: int


class RecipeBody(BaseModel):
    """A recipe: every training choice, each of which `overrides` may replace."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "mnist", "fields": {"network": "mnist/residual", "epochs": 15}}]}
    )

    name: str
    fields: dict[str, Any]


class ArchitectureBody(BaseModel):
    """A network that recipes can name."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "cifar/resnet20",
                    "source": "He et al. 2015, section 4.2",
                    "channels": 3,
                    "image_size": 32,
                    "fixed_size": False,
                    "parameters": 269722,
                    "description": "20 layers of 3×3 convolutions.",
                }
            ]
        }
    )

    name: str
    source: str
    channels: int
    image_size: int
    fixed_size: bool
    parameters: int
    description: str
