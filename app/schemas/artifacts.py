"""A job's files as answers show them."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from store.artifacts import Artifact

EXAMPLE: dict[str, Any] = {
    "name": "report.json",
    "bytes": 18211,
    "media_type": "application/json",
    "sha256": "0123456789abcdef" * 4,
    "href": "/v1/jobs/job_8d3f21aa/artifacts/report.json",
}


class ArtifactBody(BaseModel):
    """One file that a job made for download."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    name: str
    bytes: int
    media_type: str
    sha256: str = Field(description="In hex; also the download's ETag.")
    href: str = Field(description="Where to download it.")

    @classmethod
    def of(cls, job_id: str, artifact: Artifact) -> "ArtifactBody":
        return cls(**artifact.model_dump(), href=f"/v1/jobs/{job_id}/artifacts/{artifact.name}")
