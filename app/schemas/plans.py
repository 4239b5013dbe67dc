"""A plan of a training as answers show it."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.schemas.common import ref
from app.schemas.jobs import TRAIN_EXAMPLE, TrainRequest

_EXAMPLE: dict[str, Any] = {
    "recipe": {"network": "cifar/resnet8", "epochs": 4, "batch_size": 128, "lr": 0.1},
    "images": {"train": 58200, "val": 1800, "test": 10000},
    "parameters": 75002,
    "flops_per_image": 19157888,
    "steps_per_epoch": 454,
    "steps": 1816,
    "learning_rate": {"steps": [0, 680, 681, 1815], "values": [0.0000734, 0.0999, 0.1, 0.000044]},
    "device": {"worker": "bench-1", "name": "Intel(R) Xeon(R) Processor, 2 threads", "type": "cpu"},
    "images_per_second": 2890.4,
    "eta_seconds": 93.0,
    "eta": {
        "start": 4.0,
        "load": 0.1,
        "train": 80.4,
        "validate": 1.2,
        "save": 0.5,
        "test": 4.4,
        "report": 2.4,
        "total": 93.0,
    },
    "memory": {
        "peak_bytes": 512000000,
        "device_bytes": 25000000000,
        "free_bytes": 21000000000,
        "data_bytes": 47040000,
        "method": "measured",
    },
    "largest_batch_size": 8192,
    "largest_batch": {"images": 8192, "method": "estimated", "bound_by": "recipe"},
    "measured": {
        "reason": None,
        "cached": False,
        "at": "2026-01-31T12:00:00Z",
        "batch_size": 128,
        "warmup_steps": 3,
        "steps": 50,
        "seconds": 2.214,
        "core_share": 0.991,
        "streamed": False,
        "evaluate_images_per_second": 8512.0,
        "load_images_per_second": 410000.0,
        "save_seconds": 0.12,
    },
    "problems": [
        {
            "severity": "note",
            "code": "no_val_split",
            "message": "the dataset has no val split: 3% of train is held out",
            "hint": "Set val_fraction for another share.",
        }
    ],
}


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class ImagesBody(_Part):
    """Images that the run would train on, validate on, and be tested on."""

    train: int
    val: int
    test: int


class LearningRateBody(_Part):
    """The learning rate `values[i]` of step `steps[i]`, counted from 0; between two points it is a line."""

    steps: list[int]
    values: list[float]


class PlanDeviceBody(_Part):
    worker: str = Field(description="The worker's host name.")
    name: str = Field(description="The device; as the worker's settings name it, where it was left alone.")
    type: str | None = Field(description="`cpu` or `cuda`; null where it was left alone.")


class EtaBody(_Part):
    """Seconds of each part, where training ends with its last epoch or its `max_seconds`."""

    start: float = Field(0.0, description="Until the process can begin, as long as the planner's own took.")
    load: float
    train: float
    validate_: float = Field(alias="validate")
    save: float = Field(0.0, description="Of all checkpoints.")
    test: float
    report: float = Field(0.0, description="Drawings and the process's end, estimated by `start`.")
    total: float


class MemoryBody(_Part):
    """Of the device: a GPU's own, else the machine's, of which the whole process counts."""

    peak_bytes: int | None = Field(
        description="The most that training steps or a validation hold, with the run's images and, on a CPU, the best "
        "epoch's weights; a checkpoint takes less. The report at its end is not counted."
    )
    device_bytes: int
    free_bytes: int = Field(description="That the run could have had when it was measured.")
    data_bytes: int = Field(description="Of the images that it keeps in memory.")
    method: Literal["measured", "estimated"] = Field(description="`estimated`: on the line through smaller batches.")


class LargestBatchBody(_Part):
    images: int
    method: Literal["tried", "estimated"] = Field(description="`estimated`: by the memory of smaller batches.")
    bound_by: Literal["memory", "data", "recipe"] = Field(description="`recipe`: a recipe's largest `batch_size`.")


class MeasuredBody(_Part):
    """How the figures were measured: real training steps on the dataset's images; `reason` says why they were not."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True)

    reason: str | None = Field(
        description="`device_busy`, `device_needed` (a job came), `refused` (see problems), `out_of_memory`, "
        "`too_slow`, `died`; null: measured."
    )
    cached: bool = Field(description="Measured by an earlier plan, within the last hour.")
    at: datetime | None = None
    batch_size: int | None = None
    warmup_steps: int | None = None
    steps: int | None = None
    seconds: float | None = None
    core_share: float | None = Field(
        None,
        description="Of the time for which the steps wanted cores, the part in which they had them; below 0.85 there "
        "is the problem `machine_busy`, and the figures are not kept for another plan.",
    )
    streamed: bool | None = Field(None, description="The images are read as they are needed, and were here.")
    evaluate_images_per_second: float | None = None
    load_images_per_second: float | None = None
    save_seconds: float | None = Field(None, description="Of one checkpoint.")


class PlanProblemBody(_Part):
    severity: Literal["error", "warning", "note"] = Field(description="`error`: the training would be refused.")
    code: str
    message: str
    hint: str


class PlanBody(_Part):
    """What a training would be. Figures that need the device are null where it was not free."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    recipe: dict[str, Any] = Field(description="Every field of the recipe, the overrides applied.")
    images: ImagesBody
    parameters: int
    flops_per_image: int = Field(description="Of the forward pass; two for each multiply-accumulate.")
    steps_per_epoch: int
    steps: int
    learning_rate: LearningRateBody
    device: PlanDeviceBody
    images_per_second: float | None = Field(description="Of training steps, measured.")
    eta_seconds: float | None
    eta: EtaBody | None
    memory: MemoryBody | None
    largest_batch_size: int | None
    largest_batch: LargestBatchBody | None
    measured: MeasuredBody
    problems: list[PlanProblemBody] = Field(
        description="Of the data and of what it is to be trained with; worst first."
    )


PLAN_REQUEST: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": ref(TrainRequest),
                "example": TRAIN_EXAMPLE,
            }
        },
    }
}
