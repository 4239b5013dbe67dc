"""Refusals as the OpenAPI document shows them: for each status one, with a code of docs/errors.md that has it."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, NamedTuple

from pydantic import BaseModel, Field

from app.problems import wrong


class WrongField(BaseModel):
    """`pointer`: `#/a/b` (RFC 6901) in a JSON body, else `/query/name`, `/path/name`, `/header/name`."""

    pointer: str
    detail: str


class Problem(BaseModel):
    """RFC 9457 problem details: the body of every error. With some codes there are further members."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str = Field(description="Stable, and for machines; `detail` and `hint` may be worded anew.")
    request_id: str = Field(description="As in the header X-Request-ID and in the server's log.")
    hint: str = Field(description="What to do instead.")
    errors: list[WrongField]


class Refusal(NamedTuple):
    """`name` is the response's among the document's components, `meaning` what every refusal of its status says."""

    name: str
    status: int
    meaning: str
    code: str
    instance: str
    detail: str
    hint: str
    members: Mapping[str, Any] = {}

    def problem(self) -> dict[str, Any]:
        """The body of an answer."""
        return {
            "type": f"urn:resnetd:problem:{self.code}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "instance": self.instance,
            "code": self.code,
            "request_id": "req_0f8fad5bd9cb469fa16570867728950e",
            "hint": self.hint,
            "errors": [],
            **self.members,
        }

    def error(self) -> dict[str, Any]:
        """The body of an answer below /v2."""
        return {"error": f"{self.detail} {self.hint}"}


_ABSENT = "There is no such thing."
_NOT_SO = "It is not in a state for this."
_EVERYWHERE = (
    Refusal(
        "BadRequest",
        400,
        "The request cannot be read.",
        "invalid_json",
        "/v1/jobs",
        "The body is not JSON: unexpected character: line 1 column 1 (char 0).",
        "Send a JSON object in UTF-8.",
    ),
    Refusal(
        "Unauthorized",
        401,
        "The key is missing or unknown.",
        "key_unknown",
        "/v1/models",
        "The API key is not known here.",
        "Make one with `resnetd keys create --scope train`.",
    ),
    Refusal(
        "Forbidden",
        403,
        "The key's scope is too small, or a request without a key came from elsewhere.",
        "scope_missing",
        "/v1/jobs",
        "This needs the scope `train`; the key has `predict`.",
        "Make a key with `resnetd keys create --scope train`.",
    ),
    Refusal(
        "NotFound",
        404,
        _ABSENT,
        "model_not_found",
        "/v1/models/cat",
        "there is no model 'cat'.",
        "models here: cifar10-resnet20, mnist-residual",
    ),
    Refusal(
        "NotAcceptable",
        406,
        "The answer has no media type that Accept takes.",
        "not_acceptable",
        "/v1/explain",
        "The answer is application/json or image/png.",
        "Send one of them in Accept.",
    ),
    Refusal(
        "TooSlow",
        408,
        "The body came too slowly; the connection is closed.",
        "upload_too_slow",
        "/v1/classify",
        "The body came too slowly: 40,960 bytes, then nothing more in time.",
        "Bodies come with 16,384 bytes a second at least, and in 120 s.",
    ),
    Refusal(
        "Conflict",
        409,
        _NOT_SO,
        "model_damaged",
        "/v1/models/fashion@3",
        "the model.json of fashion@3 is damaged.",
        "Put its files back from a copy, or delete the version.",
    ),
    Refusal(
        "PreconditionFailed",
        412,
        "What If-Match or If-None-Match asks for is not so.",
        "aliases_changed",
        "/v1/models/fashion/aliases/production",
        "The model's aliases are no longer those of If-Match.",
        "GET /v1/models/{name}/aliases tells them and their ETag.",
    ),
    Refusal(
        "TooLarge",
        413,
        "The body, or the only image in it, is too large.",
        "body_too_large",
        "/v1/classify",
        "The body is larger than 100,000,000 bytes.",
        "RESNETD_MAX_REQUEST_BYTES is 100,000,000.",
    ),
    Refusal(
        "UnsupportedEncoding",
        415,
        "The body's Content-Encoding is not read.",
        "unsupported_media_type",
        "/v2/models/fashion/infer",
        "A body in Content-Encoding br is not read.",
        "Send it in gzip or deflate, or as it is: images are compressed already.",
    ),
    Refusal(
        "RangeNotSatisfiable",
        416,
        "The file has no bytes in this Range.",
        "range_not_satisfiable",
        "/v1/jobs/job_8d3f21aa/artifacts/report.json",
        "The file has 18211 bytes, and none in this Range.",
        "Ask for a Range within the file, or for all of it without one.",
    ),
    Refusal(
        "Invalid",
        422,
        "The request is understood and wrong; `errors` points at the fields.",
        "invalid_request",
        "/v1/models",
        "/query/limi: unknown parameter.",
        "Did you mean `limit`? Parameters here: limit, after.",
        {"errors": wrong("/query/limi", "unknown parameter")},
    ),
    Refusal(
        "TooManyRequests",
        429,
        "This key asks too much at once.",
        "too_many_requests",
        "/v1/classify",
        "This key has 512 requests under way; at most 512 may be.",
        "Wait for answers before you send more.",
    ),
    Refusal(
        "Unavailable",
        503,
        "Not now: too much is under way, or a part of the server is away.",
        "overloaded",
        "/v1/classify",
        "The model's engine is full.",
        "Ask again later, slower.",
    ),
    Refusal(
        "DeadlineExceeded",
        504,
        "The answer took too long.",
        "deadline_exceeded",
        "/v1/classify",
        "no answer within 30 s.",
        "Send fewer images at once, or ask again later.",
    ),
    Refusal(
        "DiskFull",
        507,
        "The server's disk has no space for it; nothing was kept.",
        "disk_full",
        "/v1/datasets",
        "The server's disk is full.",
        "Free some space in the server's data directory, then upload again.",
    ),
)
#: Status → what it looks like.
REFUSALS = {each.status: each for each in _EVERYWHERE}
#: Tag → the same, where operations with this tag have codes of their own.
OF_TAG = {
    "datasets": {
        404: Refusal(
            "DatasetNotFound",
            404,
            _ABSENT,
            "dataset_not_found",
            "/v1/datasets/ds_5c9a6f0d",
            "There is no dataset 'ds_5c9a6f0d'.",
            "GET /v1/datasets lists them.",
        ),
        409: Refusal(
            "DatasetConflict",
            409,
            _NOT_SO,
            "dataset_in_use",
            "/v1/datasets/ds_5c9a6f0d",
            "Job job_8d3f21aa (train, running) uses this dataset.",
            "Wait until it has ended, or cancel it: POST /v1/jobs/job_8d3f21aa/cancel",
        ),
    },
    "jobs": {
        404: Refusal(
            "JobNotFound",
            404,
            _ABSENT,
            "job_not_found",
            "/v1/jobs/job_8d3f21aa",
            "There is no job 'job_8d3f21aa'.",
            "GET /v1/jobs lists them.",
        ),
        409: Refusal(
            "JobConflict",
            409,
            _NOT_SO,
            "wrong_state",
            "/v1/jobs/job_8d3f21aa/pause",
            "The job cannot be paused: it is succeeded.",
            "Queued and running jobs can be paused.",
            {"state": "succeeded"},
        ),
    },
}
#: What any other status may look like.
FAILED = Refusal(
    "Failed",
    500,
    "Any other error.",
    "internal_error",
    "/v1/classify",
    "The server failed to answer this request; the log has the reason under the request id.",
    "Report the request_id. Repeating the request is safe where it carries an Idempotency-Key.",
)


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's `responses` for a route's own refusals, and `default` for any other.

    `app/openapi.py` fills them in, in the shape of the address, and adds those that follow from what the route asks
    for: a scope, known query parameters, a body.
    """
    return {
        "default": {"description": FAILED.meaning},
        **{status: {"description": REFUSALS[status].meaning} for status in statuses},
    }
