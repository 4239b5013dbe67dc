"""From a request to images: a raw body, a multipart form with any number of files, or JSON with base64.

Each way ends in the same `ImagesIn`. An image that cannot be taken (too large, bad base64) keeps its place with an
error of its own, so that one bad image does not sink the others.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, TypeVar

import anyio.to_thread
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request

from app import bodies
from app.base64_files import decoded
from app.inference.protocol import ImageError, Output
from app.multipart import Event, MultipartReader, PartBegin, PartData, plain_filename
from app.problems import InvalidError, NotFoundError, wrong
from app.services.classification import ImageIn
from models.nearest import did_you_mean
from store.settings import Settings

_MAX_FIELD_BYTES = 1024
_FIELDS = ("top_k", "model", "outputs")
_ANYTHING = ("", "application/x-www-form-urlencoded")  # what curl sends when nobody said what it is


class JsonImage(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    b64: str = Field(description="The image file, base64, with line breaks or without; a `data:` URL is taken too.")
    filename: str | None = Field(None, max_length=200)


class JsonImages(BaseModel):
    """Images in JSON, and what is asked of them."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        json_schema_extra={"examples": [{"images": [{"b64": "iVBORw0KGgo…"}], "top_k": 2}]},
    )

    images: list[JsonImage] = Field(min_length=1)
    top_k: int | None = Field(None, ge=1)
    model: str | None = Field(None, max_length=200)
    outputs: list[Annotated[str, Field(max_length=200)]] | None = Field(
        None, max_length=20, description="What else of the forward pass: embedding, logits, probabilities."
    )


@dataclass
class ImagesIn:
    images: list[ImageIn] = field(default_factory=list)
    top_k: int | None = None
    model: str | None = None
    outputs: tuple[Output, ...] | None = None


Said = TypeVar("Said")


class BodyKind(StrEnum):
    """How a request carries its images. The first two may name a model, too."""

    FORM = "form"  # any number of files
    JSON = "json"  # any number of files, base64
    IMAGE = "image"  # the body is the image's file


def body_kind(content_type: str, beginning: bytes) -> BodyKind | None:
    """By the media type, and where that says nothing by the body's first byte; None where that is not there."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return BodyKind.FORM
    if kind == "application/json" or kind.endswith("+json"):
        return BodyKind.JSON
    if kind not in _ANYTHING:
        return BodyKind.IMAGE
    if not beginning:
        return None
    return BodyKind.JSON if beginning[:1] == b"{" else BodyKind.IMAGE


def outputs_named(names: list[str], place: str) -> tuple[Output, ...]:
    """Of `["embedding,logits"]` or `["embedding", "logits"]`, each once, in `Output`'s order.

    Raises InvalidError, with the nearest name.
    """
    found: set[Output] = set()
    for name in (part.strip() for text in names for part in text.split(",")):
        if name not in set(Output):
            hint = did_you_mean(name, Output) + f"There are: {', '.join(sorted(Output))}."
            detail = f"{name[:40]!r} is no output"
            raise InvalidError("invalid_request", f"{place}: {detail}.", hint=hint, errors=wrong(place, detail))
        found.add(Output(name))
    return tuple(each for each in Output if each in found)


def agreed(name: str, address: Said | None, body: Said | None) -> Said | None:
    """What the address, by its path or its query, or the body says of `name`.

    Raises InvalidError where both say something, and not the same: neither is ignored.
    """
    if address is None or body is None or address == body:
        return body if address is None else address
    said = ", ".join(address) if isinstance(address, tuple) else address
    detail = f"the address says {said}"
    hint = f"Say `{name}` in the address or in the body, or the same in both."
    raise InvalidError("invalid_request", f"#/{name}: {detail}.", hint=hint, errors=wrong(f"#/{name}", detail))


@contextmanager
def naming(address: str | None, body: str | None) -> Iterator[None]:
    """A model that the body alone names is one of its fields: where it is not there, that is no 404 of the address but
    a 422 that points at the field.
    """
    try:
        yield
    except NotFoundError as error:
        if address or not body or error.code != "model_not_found":
            raise
        raise InvalidError(error.code, error.detail, hint=error.hint, errors=wrong("#/model", error.detail)) from error


async def read_images(request: Request, settings: Settings) -> ImagesIn:
    """Raises TooLargeError, BadRequestError, InvalidError."""
    content_type = request.headers.get("content-type", "")
    hint = f"RESNETD_MAX_REQUEST_BYTES is {settings.max_request_bytes:,}; send fewer images in one request."
    if body_kind(content_type, b"") is BodyKind.FORM:
        found = await _from_form(request, content_type, settings, hint)
    else:
        body = await bodies.read(request, settings.max_request_bytes, hint=hint)
        if body_kind(content_type, body) is BodyKind.JSON:
            found = await _from_json(body, settings)
        else:
            found = ImagesIn([image_of(body, settings)] if body else [])
    if not found.images:
        raise InvalidError(
            "no_image",
            "The request holds no image.",
            hint='`curl -T cat.jpg …`, `curl -F file=@cat.jpg …` or JSON {"images":[{"b64":"…"}]}.',
        )
    if len(found.images) > settings.max_images_per_request:
        raise _too_many(settings)
    return found


_COMMAS_PER_IMAGE = 8  # base64 has none; between an image's fields there are two, and a file name may have some


def _too_many(settings: Settings) -> InvalidError:
    limit = settings.max_images_per_request
    hint = f"RESNETD_MAX_IMAGES_PER_REQUEST is {limit}; send several requests."
    return InvalidError("too_many_images", f"At most {limit} images a request.", hint=hint)


def image_of(data: bytes, settings: Settings, filename: str | None = None) -> ImageIn:
    """The image that this file is, or why it is not taken."""
    if not data:
        error = ImageError(code="empty_image", message="The file is empty.", hint="Send the image file's bytes.")
        return ImageIn(b"", filename, error)
    if len(data) > settings.max_image_bytes:
        return ImageIn(b"", filename, _oversized(settings))
    return ImageIn(data, filename)


def _oversized(settings: Settings) -> ImageError:
    limit = settings.max_image_bytes
    return ImageError(
        code="image_too_large",
        message=f"The image file is larger than {limit:,} bytes.",
        hint=f"RESNETD_MAX_IMAGE_BYTES is {limit:,}; scale it down: networks see few pixels.",
    )


async def _from_json(body: bytes, settings: Settings) -> ImagesIn:
    # Counted before anything is built of them: a million small items take more memory than their text.
    if body.count(b",") > _COMMAS_PER_IMAGE * settings.max_images_per_request:
        raise _too_many(settings)
    value = await bodies.parse_json(body)
    images = value.get("images") if isinstance(value, dict) else None
    if isinstance(images, list) and len(images) > settings.max_images_per_request:
        raise _too_many(settings)
    asked = bodies.validate(JsonImages, value)

    def decode_all() -> list[ImageIn]:
        return [_from_base64(image, settings) for image in asked.images]

    decoded = await anyio.to_thread.run_sync(decode_all) if len(body) > 256 * 1024 else decode_all()
    outputs = None if asked.outputs is None else outputs_named(asked.outputs, "#/outputs")
    return ImagesIn(decoded, asked.top_k, asked.model, outputs)


def _from_base64(image: JsonImage, settings: Settings) -> ImageIn:
    filename = None if image.filename is None else plain_filename(image.filename)
    try:
        data = decoded(image.b64.encode())
    except ValueError as error:
        hint = "Standard base64 with padding: `base64 -w0 cat.jpg`."
        refused = ImageError(code="invalid_base64", message=f"Not base64: {error}.", hint=hint)
        return ImageIn(b"", filename, refused)
    return image_of(data, settings, filename)


async def _from_form(request: Request, content_type: str, settings: Settings, hint: str) -> ImagesIn:
    reader = MultipartReader(content_type, max_parts=settings.max_images_per_request + len(_FIELDS))
    form = _Form(settings)
    async for piece in bodies.stream(request, settings.max_request_bytes, hint=hint):
        for event in reader.feed(piece):
            form.take(event)
    reader.close()
    return form.found


class _Form:
    """Collects a form's parts: every file is an image whatever its field is called; `_FIELDS` are fields."""

    def __init__(self, settings: Settings) -> None:
        self.found = ImagesIn()
        self._settings = settings
        self._part = PartBegin("", None, "")
        self._data = bytearray()

    def take(self, event: Event) -> None:
        if isinstance(event, PartBegin):
            self._part = event
            self._data = bytearray()
            if not event.is_file and event.name not in _FIELDS:
                raise InvalidError(
                    "unknown_field",
                    f"The form's field {event.name[:50]!r} is neither a file nor one of {', '.join(_FIELDS)}.",
                    hint="Send files with a file name: `curl -F image=@cat.jpg …`.",
                )
        elif isinstance(event, PartData):
            # One byte too many is enough to know; the rest of an oversized part is dropped as it comes.
            limit = self._settings.max_image_bytes if self._part.is_file else _MAX_FIELD_BYTES
            self._data += event.data[: limit + 1 - len(self._data)]
        elif self._part.is_file:
            self.found.images.append(image_of(bytes(self._data), self._settings, self._part.filename))
        else:
            self._set(self._part.name, self._data.decode("utf-8", "replace").strip())

    def _set(self, name: str, text: str) -> None:
        if name == "model":
            self.found.model = text[:200] or None
            return
        if name == "outputs":
            self.found.outputs = outputs_named([text], "#/outputs")
            return
        try:
            self.found.top_k = int(text[:20])
        except ValueError:
            self.found.top_k = 0
        if self.found.top_k < 1:
            detail = "Input should be a whole number of at least 1"
            raise InvalidError(
                "invalid_request",
                f"#/top_k: {detail}",
                hint="top_k is how many labels you want for each image.",
                errors=wrong("#/top_k", detail),
            )
