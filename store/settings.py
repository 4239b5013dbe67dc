"""Every setting of resnetd, the same name in the environment and as a flag.

`RESNETD_DATA` is `--data`, and so on; the two well-known names without a prefix are Redis's own.
"""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from pydantic import AliasChoices, Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

_PREFIX = "RESNETD_"
#: Variables that are no settings, and read all the same: by the command line as a client, by tests, between processes.
OTHER_VARIABLES = frozenset(
    {
        "RESNETD_SERVER",
        "RESNETD_KEY",
        "RESNETD_TEST_DATA",
        "RESNETD_LEDGER_EXAMPLES",
        "RESNETD_CHURN_JOBS",
        "RESNETD_FAULT",
        "RESNETD_FAULT_ONCE",
        "RESNETD_PARENT_PID",
        "RESNETD_RENDEZVOUS",
    }
)


class Precision(StrEnum):
    """How far a network's numbers may go from float32's for speed, on the same pixels.

    All but `exact` decode JPEGs faster, too: values of 0 to 255 differ by 2 at most, or by 0.5 in the mean of an image
    that is decoded smaller. What that does to an answer is not judged.
    """

    EXACT = "exact"  # probabilities within 1e-3
    BF16 = "bf16"  # within 2e-2, the same top class on 99 of 100
    FASTEST = "fastest"  # also int8, where accuracy on labelled images drops by 0.5 points at most


class RuntimeName(StrEnum):
    """What computes a network."""

    AUTO = "auto"  # the fastest that this machine has, found by measuring
    EAGER = "eager"  # PyTorch as it is, float32: nothing is measured
    FOLDED = "folded"  # PyTorch, normalisation folded into the convolutions
    COMPILED = "compiled"  # torch.compile ahead of time, weights frozen
    OPENVINO = "openvino"  # OpenVINO's CPU plugin
    CUDA_GRAPHS = "cuda_graphs"  # PyTorch on NVIDIA, kernels recorded once


class LogLevel(StrEnum):
    """From which level on records are logged."""

    DEBUG = "DEBUG"  # all that libraries have to say, too
    INFO = "INFO"  # what happens
    WARNING = "WARNING"  # what went otherwise than it should
    ERROR = "ERROR"  # what failed


@dataclass(frozen=True)
class BatchLimits:
    """What a person said about a model's batches; None is left to what is found at load."""

    images: int | None = None
    delay_ms: float | None = None

    def over(self, images: int, delay_ms: float) -> tuple[int, float]:
        """These limits where they are given, else those found."""
        return self.images or images, delay_ms if self.delay_ms is None else self.delay_ms


class Settings(BaseSettings):
    """What a process needs to know about where it runs. Read once, at start, and handed on."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, frozen=True, populate_by_name=True)

    data: Path = Field(Path("var"), description="The data directory: models, datasets, jobs, the embedded Redis.")
    host: str = Field("127.0.0.1", description="Address the HTTP server listens on; others than loopback need a key.")
    port: int = Field(8000, ge=0, le=65535, description="Port of the HTTP server; 0 takes a free one.")
    http_workers: int = Field(1, ge=1, le=64, description="HTTP processes that share the address and the engines.")
    redis_url: str | None = Field(
        None,
        validation_alias=AliasChoices("REDIS_URL", "redis_url"),
        description="A Redis server; unset, `resnetd up` runs an embedded one on a private unix socket.",
    )
    device: str = Field("auto", description="Where networks compute: `auto`, `cpu`, `cuda`, `cuda:0`, …")
    model: str = Field("cifar10-resnet20", description="The model that `/v1/classify` uses when none is named.")
    log_level: LogLevel = Field(LogLevel.INFO, description="`DEBUG`, `INFO`, `WARNING` or `ERROR`.")
    precision: Precision = Field(
        Precision.BF16,
        description="Numbers that networks may use: exact, bf16 or fastest; all but exact decode JPEGs faster, too.",
    )
    runtime: RuntimeName = Field(RuntimeName.AUTO, description="What computes; `auto` measures and takes the fastest.")
    batching: str = Field(
        "", description="Batch limits, `resnet50=16/2.5,other=64`: images and ms. Found at load for models not named."
    )
    max_engines: int = Field(4, ge=1, description="Model versions kept loaded at once; the longest unused one goes.")
    max_image_bytes: int = Field(25_000_000, ge=1, description="Largest single image, in bytes.")
    max_image_pixels: int = Field(  # Pillow refuses larger ones, and guards what it allocates before it tells a size
        40_000_000, ge=1, le=178_956_970, description="Largest single image, in pixels."
    )
    max_images_per_request: int = Field(256, ge=1, description="Most images in one classification request.")
    max_request_bytes: int = Field(100_000_000, ge=1, description="Largest request with images or tensors, in bytes.")
    max_dataset_bytes: int = Field(20_000_000_000, ge=1, description="Largest dataset upload, in bytes.")
    max_model_bytes: int = Field(4_000_000_000, ge=1, description="Largest model upload, in bytes.")
    max_archive_members: int = Field(2_000_000, ge=1, description="Most files in one dataset archive.")
    max_archive_ratio: int = Field(100, ge=1, description="Largest unpacked-to-packed ratio of a dataset archive.")
    max_waiting_images: int = Field(512, ge=1, description="Images an engine holds before it answers 503.")
    max_requests: int = Field(1024, ge=1, description="Classification requests under way before the answer is 503.")
    max_requests_per_key: int = Field(
        512, ge=1, description="Classification requests of one API key under way before the answer is 429."
    )
    max_held_bytes: int = Field(
        1_000_000_000, ge=1, description="Bytes of classification requests' bodies held before the answer is 503."
    )
    max_unfinished_jobs: int = Field(
        10_000, ge=1, description="Jobs that have not ended before another one is answered 503."
    )
    request_timeout_seconds: float = Field(
        30.0, gt=0, description="Seconds a classification may take before it answers 504."
    )
    stall_seconds: float = Field(300.0, gt=0, description="A job's process that says nothing for so long is ended.")
    drain_seconds: float = Field(
        20.0, gt=0, description="Seconds that a stopping worker's job, or a stopping server's requests, have to end."
    )
    drain_delay_seconds: float = Field(
        2.0, ge=0, description="Seconds for which a stopping server still answers, while load balancers look away."
    )
    job_retention_seconds: float = Field(
        604_800.0, ge=0, description="Seconds for which Redis keeps ended jobs; the disk goes on."
    )
    webhook_hosts: str = Field(
        "", description="Hosts and networks, comma-separated, that webhooks may reach besides public ones."
    )

    @field_validator("device")
    @classmethod
    def _device(cls, text: str) -> str:
        # PyTorch names more, on which nothing here was ever tried. Whether a machine has it is seen when it computes.
        # cpu:N is the same processor under another name: a worker with it has a slot for trainings of its own.
        if not re.fullmatch(r"auto|(cpu|cuda)(:(0|[1-9][0-9]{0,2}))?", text):
            raise ValueError("Input should be auto, cpu, cuda or cuda:N, as in cuda:0")
        return text

    @field_validator("log_level", mode="before")
    @classmethod
    def _log_level(cls, text: object) -> object:
        return text.upper() if isinstance(text, str) and text.upper() in LogLevel.__members__ else text

    @field_validator("batching")
    @classmethod
    def _batching(cls, text: str) -> str:
        _batch_limits(text)
        return text

    def batch_limits(self, model: str) -> BatchLimits:
        return _batch_limits(self.batching).get(model, BatchLimits())


def unknown_variables(environment: Mapping[str, str]) -> dict[str, str | None]:
    """The variables that are called as ours are and that nobody reads, each with the nearest name, None without one.

    Settings are found in capitals and in small letters, as pydantic looks for them.
    """
    settings = [_PREFIX + name.upper() for name in Settings.model_fields]
    known = {name.removeprefix(_PREFIX): name for name in (*settings, *sorted(OTHER_VARIABLES))}
    known |= {"REDIS_URL": "REDIS_URL"}  # that is what the documents call it
    found: dict[str, str | None] = {}
    for name in sorted(environment):
        capitals = name.upper()
        if capitals.startswith(_PREFIX) and capitals not in settings and name not in OTHER_VARIABLES:
            matches = difflib.get_close_matches(capitals.removeprefix(_PREFIX), known, n=1, cutoff=0.5)
            found[name] = known[matches[0]] if matches else None
    return found


def _batch_limits(text: str) -> dict[str, BatchLimits]:
    """`resnet50=16/2.5,other=64`. Raises ValueError, which quotes the part that is not of this kind."""
    found = {}
    for part in filter(None, text.replace(" ", "").split(",")):
        match = re.fullmatch(r"([a-z0-9][a-z0-9._-]*)=([1-9][0-9]{0,3})(?:/([0-9]{1,4}(?:\.[0-9]+)?))?", part)
        if match is None:
            raise ValueError(f"{part!r} is not MODEL=IMAGES or MODEL=IMAGES/MILLISECONDS, as in resnet50=16/2.5")
        found[match[1]] = BatchLimits(int(match[2]), float(match[3]) if match[3] else None)
    return found
