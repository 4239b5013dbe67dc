"""What a server says of itself."""

from pydantic import BaseModel, ConfigDict


class Discovery(BaseModel):
    """Where everything is."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "resnetd", "version": "0.1.0", "links": {"classify": "/v1/classify"}}]}
    )

    name: str
    version: str
    links: dict[str, str]


class Liveness(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "alive"}]})

    status: str


class ReadinessPart(BaseModel):
    """`reason` says why it is not ready. Some parts tell more."""

    model_config = ConfigDict(extra="allow")

    ready: bool
    reason: str | None


class ReadinessBody(BaseModel):
    """`ready`, `degraded` (it classifies, some other part is missing) or `not_ready` (503)."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "status": "ready",
                    "not_ready": [],
                    "parts": {
                        "server": {"ready": True, "reason": None},
                        "engine": {"ready": True, "reason": None, "model": "cifar10-resnet20", "version": 1},
                        "ledger": {"ready": True, "reason": None},
                        "worker": {"ready": True, "reason": None},
                    },
                }
            ]
        }
    )

    status: str
    not_ready: list[str]
    parts: dict[str, ReadinessPart]
