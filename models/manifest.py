"""model.json: everything about a model version but its weights. Without torch, so that every process can read it."""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from store.files import write_atomic

MANIFEST = "model.json"
WEIGHTS = "weights.safetensors"
CALIBRATION = "calibration.safetensors"  # see models/probes.py; a model may lack it
GOLDEN = "golden.safetensors"  # tensors `images` uint8 (G, H, W, C) and `logits` float32 (G, K)

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$", description="Lower-case letters, digits, . _ -")]


class ModelDamagedError(ValueError):
    """A model folder whose files do not belong together."""


class _Frozen(BaseModel):
    # JSON has no infinity: what came in as one would go out as null.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Preprocessing(_Frozen):
    """From a decoded image to the network's input, exactly: the same numbers in training, evaluation and serving.

    The image becomes `channels` channels; its shorter side is resized to `resize` pixels (antialiased) and the centre
    (height, width) is cut out; an image that has this size already is left alone. Then `(x / 255 - mean) / std`.
    """

    channels: Literal[1, 3]
    height: int = Field(ge=1, le=1024)
    width: int = Field(ge=1, le=1024)
    resize: int = Field(ge=1, le=2048)
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    mean: tuple[float, ...]
    std: tuple[Annotated[float, Field(gt=0)], ...]

    @model_validator(mode="after")
    def _consistent(self) -> "Preprocessing":
        if len(self.mean) != self.channels or len(self.std) != self.channels:
            raise ValueError(f"mean and std need {self.channels} values, one a channel")
        if self.resize < max(self.height, self.width):
            raise ValueError("resize must be at least the larger of height and width")
        return self


class NetworkSpec(_Frozen):
    """A network of the registry (`models/networks`) and the sizes that it is built with."""

    name: str
    num_classes: int = Field(ge=2)
    in_channels: Literal[1, 3]


class Calibration(_Frozen):
    """`probabilities = softmax(logits / temperature)` (Guo et al. 2017), fitted on validation data."""

    temperature: float = Field(gt=0)


class Origin(_Frozen):
    """The uploaded file that a model was adopted from; `sha256` in hex."""

    filename: str | None
    sha256: str
    format: Literal["safetensors", "torch", "bundle"]


class Lineage(_Frozen):
    """Where a model came from. One that was made elsewhere has an `origin`, and empty names where nothing is known."""

    job: str
    dataset: str
    dataset_name: str
    dataset_digest: str
    recipe: str
    seed: int
    code_version: str
    created_at: datetime
    origin: Origin | None = None


class Manifest(_Frozen):
    """A model version, complete. `classes[i]` is the label of class index i."""

    format: Literal[1] = 1
    network: NetworkSpec
    parameters: int
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    #: Logits and embedding are the mean over an image and its mirror image: twice the computing.
    test_time_flip: bool = False
    metrics: dict[str, Any]
    calibration: Calibration | None = None
    lineage: Lineage
    weights_sha256: str
    golden_sha256: str
    calibration_sha256: str | None = None

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        return cls.model_validate_json((folder / MANIFEST).read_bytes())

    def write(self, folder: Path) -> None:
        write_atomic(folder / MANIFEST, self.model_dump_json(indent=2).encode())
