"""Shapes that every route shares: problems and pages."""

from typing import Any, Generic, Self, TypeVar

from pydantic import BaseModel, ConfigDict

PROBLEM_EXAMPLE = {
    "type": "urn:resnetd:problem:model_not_found",
    "title": "Not Found",
    "status": 404,
    "detail": "there is no model 'cat'.",
    "instance": "/v1/models/cat",
    "code": "model_not_found",
    "request_id": "req_0f8fad5bd9cb469fa16570867728950e",
    "hint": "models here: cifar10-resnet20, mnist-residual",
    "errors": [],
}


class WrongField(BaseModel):
    """`pointer`: `#/a/b` (RFC 6901) in a JSON body, else `/query/name`, `/path/name`, `/header/name`."""

    pointer: str
    detail: str


class Problem(BaseModel):
    """RFC 9457 problem details: the body of every error."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    request_id: str
    hint: str
    errors: list[WrongField]


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's `responses` for errors: the named statuses, and `default` for any other."""
    content = {
        "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}, "example": PROBLEM_EXAMPLE}
    }
    named: dict[int | str, dict[str, Any]] = {"default": {"description": "Any other error.", "content": content}}
    return named | {status: {"description": _MEANING[status], "content": content} for status in statuses}


_MEANING = {
    400: "The request cannot be read.",
    401: "The key is missing or unknown.",
    403: "The key's scope is too small.",
    404: "There is no such thing.",
    406: "It has no such media type.",
    408: "The body came too slowly.",
    409: "It is not in a state for this.",
    412: "What If-Match names is no longer so.",
    413: "The body or an image is too large.",
    416: "The file has no such part.",
    422: "The request is wrong; `errors` points at the fields.",
    429: "This key asks too much at once; `Retry-After` says when to ask again.",
    503: "Not now; `Retry-After` says when to ask again.",
    504: "The answer took too long.",
    507: "The server's disk is full.",
}

#: Of a route whose answer bears an ETag.
NOT_MODIFIED: dict[int | str, dict[str, Any]] = {304: {"description": "It is what If-None-Match names."}}

Item = TypeVar("Item")


class Page(BaseModel, Generic[Item]):
    """A part of a list; `next` is the `after` of the next part, null at the end."""

    model_config = ConfigDict(frozen=True)

    data: list[Item]
    has_more: bool
    next: str | None

    @classmethod
    def of(cls, data: list[Item], following: str | None) -> Self:
        """`following`: the `after` of the next part, None where there is none."""
        return cls(data=data, has_more=following is not None, next=following)
