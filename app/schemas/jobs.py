"""What may be asked of jobs: a new one of each kind, and changes to one that is under way."""

import base64
import binascii
import secrets
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationInfo, field_validator, model_validator

from app.schemas.aliases import AliasName
from app.schemas.common import ref
from app.services.submissions import Terms
from app.services.webhook_targets import MAX_URL, check_url
from jobs.model import Kind, Priority, State, Webhook
from models.manifest import Name

TRAIN_EXAMPLE: dict[str, Any] = {
    "kind": "train",
    "dataset": "ds_5c9a6f0d",
    "recipe": "fashion-mnist-small",
    "overrides": {"epochs": 4, "lr": 0.1},
    "register_as": "fashion",
    "alias": "production",
}
EVALUATE_EXAMPLE: dict[str, Any] = {
    "kind": "evaluate",
    "model": "fashion@3",
    "dataset": "ds_5c9a6f0d",
    "split": "test",
}
EXPORT_EXAMPLE: dict[str, Any] = {"kind": "export", "model": "fashion@production", "format": "bundle"}
WEBHOOK_EXAMPLE: dict[str, Any] = {"url": "https://example.org/hooks/resnetd", "events": ["succeeded", "failed"]}
CHANGES_EXAMPLE: dict[str, Any] = {"lr": 0.02, "epochs": 12, "priority": "high"}

YEAR_SECONDS = 366 * 24 * 3600.0
_SECRET_BYTES = (24, 64)  # Standard Webhooks' bounds
_SECRET_PREFIX = "whsec_"  # noqa: S105 - no secret, but what each begins with

WebhookState = Literal["queued", "running", "paused", "succeeded", "failed", "cancelled"]


class WebhookRequest(BaseModel):
    """Whom to tell when the job enters one of `events`, as Standard Webhooks has it."""

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra={"examples": [WEBHOOK_EXAMPLE]})

    url: str = Field(max_length=MAX_URL, description="An http or https address.")
    events: tuple[WebhookState, ...] = Field(
        ("succeeded", "failed", "cancelled"), min_length=1, max_length=12, description="States that count."
    )
    secret: str | None = Field(
        None, max_length=100, description="`whsec_` and 24 to 64 bytes in base64; absent: the answer tells a new one."
    )

    @field_validator("url")
    @classmethod
    def _address(cls, url: str) -> str:
        if (refusal := check_url(url)) is not None:
            raise ValueError(refusal)
        return url

    @field_validator("secret")
    @classmethod
    def _signing(cls, secret: str | None) -> str | None:
        if secret is None:
            return None
        least, most = _SECRET_BYTES
        try:
            key = base64.b64decode(secret.removeprefix(_SECRET_PREFIX), validate=True)
        except binascii.Error:
            key = b""
        if not secret.startswith(_SECRET_PREFIX) or not least <= len(key) <= most:
            raise ValueError(f"a secret is whsec_ and {least} to {most} bytes in base64")
        return secret

    def signed(self) -> Webhook:
        """With a secret: the one that was sent, else a new one."""
        secret = self.secret or _SECRET_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()
        return Webhook(url=self.url, events=tuple(dict.fromkeys(State(each) for each in self.events)), secret=secret)


class TermsRequest(BaseModel):
    """What every kind of job may be asked with, an upload's too."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    priority: Priority = Field(Priority.NORMAL, description="A lane takes high before normal before low.")
    max_seconds: float | None = Field(
        None, gt=0, le=YEAR_SECONDS, description="Seconds that the job may run, over all its claims; then it fails."
    )

    def terms(self) -> Terms:
        return Terms(priority=self.priority, max_seconds=self.max_seconds)


#: The same as fields of an upload's form, as OpenAPI describes them.
TERMS: Mapping[str, dict[str, Any]] = {
    "priority": {"$ref": "#/components/schemas/Priority"},
    "max_seconds": {"type": "number", "exclusiveMinimum": 0, "maximum": YEAR_SECONDS},
}


class _JobRequest(TermsRequest):
    """What every kind of job that is no upload may be asked with."""

    webhook: WebhookRequest | None = None

    def spec(self) -> dict[str, Any]:
        """What the job's own process is asked."""
        return self.model_dump(mode="json", exclude={"kind", *_JobRequest.model_fields})

    def terms(self) -> Terms:
        return Terms(
            priority=self.priority,
            max_seconds=self.max_seconds,
            webhook=self.webhook.signed() if self.webhook else None,
            asked=self.model_dump(mode="json"),
        )


class TrainRequest(_JobRequest):
    """A training job: `recipe` with `overrides` on `dataset`; the result becomes the next version of `register_as`."""

    model_config = ConfigDict(json_schema_extra={"examples": [TRAIN_EXAMPLE]})

    kind: Literal["train"]
    dataset: str = Field(max_length=80, description="Id of an imported dataset.")
    recipe: str = Field(max_length=80, description="A name of GET /v1/recipes.")
    overrides: dict[str, str | int | float | bool | list[Annotated[float, Strict()]] | dict[str, str] | None] = Field(
        default_factory=dict, description="Fields of the recipe with other values."
    )
    register_as: Name | None = Field(None, description="The model that the result becomes a version of.")
    alias: AliasName | None = Field(None, description="An alias that then points to the new version.")

    @field_validator("alias")
    @classmethod
    def _consistent(cls, alias: str | None, info: ValidationInfo) -> str | None:
        if alias is not None and info.data.get("register_as", "") is None:
            raise ValueError("alias needs register_as: the alias is one of that model")
        return alias


class EvaluateRequest(_JobRequest):
    """Measure a model version on a split of a dataset."""

    model_config = ConfigDict(json_schema_extra={"examples": [EVALUATE_EXAMPLE]})

    kind: Literal["evaluate"]
    model: str = Field(max_length=200, description="name, name@3 or name@alias")
    dataset: str = Field(max_length=80, description="Id of an imported dataset.")
    split: str = Field("test", max_length=80, description="A split of the dataset.")


class ExportRequest(_JobRequest):
    """Write a model version as files that others can read."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXPORT_EXAMPLE]})

    kind: Literal["export"]
    model: str = Field(max_length=200, description="name, name@3 or name@alias")
    format: Literal["bundle", "torch_export", "onnx"] = Field(
        "bundle", description="A zip for PyTorch and safetensors alone, a `torch.export` program, or an ONNX model."
    )


JobRequest = TrainRequest | EvaluateRequest | ExportRequest
#: The kinds that a client may ask for.
REQUESTS: Mapping[str, type[JobRequest]] = {
    Kind.TRAIN: TrainRequest,
    Kind.EVALUATE: EvaluateRequest,
    Kind.EXPORT: ExportRequest,
}
#: How the others are asked for.
ELSEWHERE: Mapping[str, str] = {
    Kind.IMPORT: "POST /v1/datasets, an upload, asks for an import.",
    Kind.ADOPT: "POST /v1/models, an upload, asks for it.",
}


class ChangesRequest(BaseModel):
    """New values for a job under way. `lr`, `epochs` and `patience` are a training's alone."""

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra={"examples": [CHANGES_EXAMPLE]})

    lr: float | None = Field(None, strict=True, description="The recipe's `lr`, from the next step on.")
    epochs: int | None = Field(None, strict=True, description="The recipe's `epochs`.")
    patience: int | None = Field(None, strict=True, description="The recipe's `patience`; null = none.")
    priority: Priority | None = Field(None, description="high, normal or low; absent: as it is.")

    @field_validator("priority")
    @classmethod
    def _named(cls, priority: Priority | None) -> Priority:
        if priority is None:
            raise ValueError("null is no priority; leave the field out where it is to stay")
        return priority

    @model_validator(mode="after")
    def _something(self) -> "ChangesRequest":
        if not self.model_fields_set:
            raise ValueError("name at least one of lr, epochs, patience, priority")
        return self

    def settings(self) -> dict[str, float | int | None]:
        """Those of a recipe that were named, null included."""
        return self.model_dump(include=self.model_fields_set - {"priority"})


#: Every model here that OpenAPI refers to by name.
DESCRIBED: tuple[type[BaseModel], ...] = (*REQUESTS.values(), ChangesRequest)
SUBMIT_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "oneOf": [ref(model) for model in REQUESTS.values()],
                    "discriminator": {
                        "propertyName": "kind",
                        "mapping": {kind: ref(model)["$ref"] for kind, model in REQUESTS.items()},
                    },
                },
                "examples": {
                    each["kind"]: {"value": each} for each in (TRAIN_EXAMPLE, EVALUATE_EXAMPLE, EXPORT_EXAMPLE)
                },
            }
        },
    }
}
CHANGES_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": ref(ChangesRequest), "example": CHANGES_EXAMPLE}},
    }
}
