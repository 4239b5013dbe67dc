"""What routes share: pages, and how their parts of the OpenAPI document refer to its components."""

from typing import Any, Generic, Self, TypeVar

from pydantic import BaseModel, ConfigDict


def ref(model: type[BaseModel]) -> dict[str, str]:
    """A model among the OpenAPI document's components."""
    return {"$ref": f"#/components/schemas/{model.__name__}"}


def header(name: str) -> dict[str, Any]:
    """A header among the OpenAPI document's components, as an answer's `headers` refer to it."""
    return {name: {"$ref": f"#/components/headers/{name}"}}


#: Of a route that tells in Location where to find what it made.
LOCATED: dict[int | str, dict[str, Any]] = {202: {"headers": header("Location")}}
#: Of a route whose answer bears an ETag.
TAGGED: dict[int | str, dict[str, Any]] = {200: {"headers": header("ETag")}}
#: Of one that tells no more where the client has what the ETag is of.
NOT_MODIFIED: dict[int | str, dict[str, Any]] = {
    304: {"description": "It is what If-None-Match names.", "headers": header("ETag")}
}

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
