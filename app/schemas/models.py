from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from app.inference.routes import EngineState
from models.aliases import Canary, Past, Shadow
from models.manifest import Calibration, Lineage, Name, NetworkSpec, Preprocessing
from models.networks.registry import Entry

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
ALIAS_EXAMPLE: dict[str, Any] = {
    "name": "fashion",
    "alias": "production",
    "version": 3,
    "canary": {"version": 4, "percent": 10.0},
    "shadow": {"version": 5},
    "since": "2026-01-31T12:00:00Z",
    "history": [
        {"version": 2, "since": "2026-01-30T09:00:00Z", "until": "2026-01-31T12:00:00Z", "left_by": "set"},
    ],
}
ALIAS_REQUEST_EXAMPLE: dict[str, Any] = {
    "version": 3,
    "canary": {"version": 4, "percent": 10},
    "shadow": {"version": 5},
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


class Loaded(BaseModel):
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
    loaded: list[Loaded]


class LoadBody(BaseModel):
    """How far a version is with being loaded or unloaded."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"model": "fashion", **LOADED_EXAMPLE}]})

    model: str
    version: int
    state: EngineState | Literal["unloaded"]
    device: str | None
    reason: str | None
    runtime: dict[str, Any] | None


class AliasRequest(BaseModel):
    """All of an alias: without a canary or a shadow it has none."""

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra={"examples": [ALIAS_REQUEST_EXAMPLE]})

    version: int = Field(ge=1)
    canary: Canary | None = Field(None, description="A version that answers `percent` of the alias's requests.")
    shadow: Shadow | None = Field(None, description="A version that gets a copy of each file; its labels are compared.")


class AliasBody(BaseModel):
    """An alias. `history` has what it pointed to before, the oldest first."""

    model_config = ConfigDict(json_schema_extra={"examples": [ALIAS_EXAMPLE]})

    name: str
    alias: str
    version: int
    canary: Canary | None
    shadow: Shadow | None
    since: datetime | None = Field(description="When it came to its version; null where nobody set it.")
    history: list[Past]


class AliasesBody(BaseModel):
    """Every alias of a model. `production`, where nobody set it, is the newest version."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "fashion", "aliases": {"production": ALIAS_EXAMPLE}}]}
    )

    name: str
    aliases: dict[str, AliasBody]


class LabelsBody(BaseModel):
    """`labels[i]` is the name of class index i."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"model": "fashion", "version": 3, "labels": ["t-shirt", "trouser"]}]}
    )

    model: str
    version: int
    labels: list[str]


class MetricsBody(BaseModel):
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
    alias: Name | None = None
    network: str | None = None
    classes: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] | None = Field(
        None, min_length=2, max_length=100_000
    )
    preprocessing: PreprocessingRequest | None = None

    @field_validator("alias")
    @classmethod
    def _no_number(cls, alias: str | None) -> str | None:
        if alias is not None and alias.isdigit():
            raise ValueError("alias must not be a number")
        return alias

    @field_validator("classes")
    @classmethod
    def _distinct(cls, classes: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if classes is not None and len(set(classes)) < len(classes):
            twice = next(name for name in classes if classes.count(name) > 1)
            raise ValueError(f"the class {twice!r} is named twice")
        return classes


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
                    "weights": [],
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
    weights: list[str] = Field(description="Torchvision's names of weights that a recipe's `init` may take.")

    @classmethod
    def of(cls, entry: Entry) -> "ArchitectureBody":
        channels, size = entry.input
        return cls(
            name=entry.name,
            source=entry.source,
            channels=channels,
            image_size=size,
            fixed_size=entry.fixed_size,
            parameters=entry.parameters,
            description=entry.description,
            weights=list(entry.weights),
        )
