"""Every setting of resnetd, the same name in the environment and as a flag.

`RESNETD_DATA` is `--data`, and so on; the two well-known names without a prefix are Redis's own.
"""

from pathlib import Path

from pydantic import AliasChoices, Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """What a process needs to know about where it runs. Read once, at start, and handed on."""

    model_config = SettingsConfigDict(env_prefix="RESNETD_", frozen=True, populate_by_name=True)

    data: Path = Field(Path("var"), description="The data directory: models, datasets, jobs, the embedded Redis.")
    host: str = Field("127.0.0.1", description="Address the HTTP server listens on; others than loopback need a key.")
    port: int = Field(8000, ge=0, le=65535, description="Port of the HTTP server; 0 takes a free one.")
    redis_url: str | None = Field(
        None,
        validation_alias=AliasChoices("REDIS_URL", "redis_url"),
        description="A Redis server; unset, `resnetd up` runs an embedded one on a private unix socket.",
    )
    device: str = Field("auto", description="Where networks compute: `auto`, `cpu`, `cuda`, `cuda:0`, …")
    model: str = Field("cifar10-resnet20", description="The model that `/v1/classify` uses when none is named.")
    log_level: str = Field("INFO", description="`DEBUG`, `INFO`, `WARNING` or `ERROR`.")
    max_engines: int = Field(4, ge=1, description="Model versions kept loaded at once; the longest unused one goes.")
    max_image_bytes: int = Field(25_000_000, ge=1, description="Largest single image, in bytes.")
    max_image_pixels: int = Field(40_000_000, ge=1, description="Largest single image, in pixels.")
    max_images_per_request: int = Field(256, ge=1, description="Most images in one classification request.")
    max_request_bytes: int = Field(100_000_000, ge=1, description="Largest classification or JSON request, in bytes.")
    max_dataset_bytes: int = Field(20_000_000_000, ge=1, description="Largest dataset upload, in bytes.")
    max_archive_members: int = Field(2_000_000, ge=1, description="Most files in one dataset archive.")
    max_archive_ratio: int = Field(100, ge=1, description="Largest unpacked-to-packed ratio of a dataset archive.")
    max_waiting_images: int = Field(512, ge=1, description="Images an engine holds before it answers 503.")
    request_timeout: float = Field(30.0, gt=0, description="Seconds a classification may take before it answers 504.")
    stall_seconds: float = Field(300.0, gt=0, description="A job's process that says nothing for so long is ended.")
    drain_seconds: float = Field(
        20.0, gt=0, description="Seconds in which the job of a stopping worker may write its checkpoint."
    )
    job_retention: float = Field(
        604_800.0, ge=0, description="Seconds for which Redis keeps ended jobs; the disk goes on."
    )
    webhook_hosts: str = Field(
        "", description="Hosts and networks, comma-separated, that webhooks may reach besides public ones."
    )
