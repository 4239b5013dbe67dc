"""What an adopt job is asked, and what its steps share."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from models.manifest import Origin
from models.networks.registry import UnknownNetworkError, find
from worker.job_process import JobRefused, Stop


class AdoptSpec(BaseModel):
    """spec.json of an adopt job. `upload` is the job in whose folder the uploaded file lies."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["adopt"]
    upload: str
    filename: str | None = None
    register_as: str
    alias: str | None = None
    network: str | None = None
    classes: tuple[str, ...] | None = None
    preprocessing: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Task:
    """One adoption: `upload` becomes the model version in the folder `draft`. `begin` names the step that begins."""

    spec: AdoptSpec
    job: str
    upload: Path
    origin: Origin
    draft: Path
    stop: Stop
    begin: Callable[[str], None]


def known(network: str | None) -> str | None:
    """Raises JobRefused for a network that is not in the registry."""
    try:
        return None if network is None else find(network).name
    except UnknownNetworkError as error:
        raise JobRefused("unknown_network", str(error), "GET /v1/architectures lists the networks.") from error
