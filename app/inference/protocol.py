"""What travels between the HTTP processes, the fleet and an engine over its unix socket.

A frame is a 4-byte big-endian header length, a 4-byte payload length, the header (JSON) and the payload (the images'
bytes end to end). Requests are `classify` (answered by results or an error), `ping` (answered after a real inference
through the same queue) and `cancel` (never answered: the request with this id is dropped). Answers come in any order.
"""

import asyncio
import struct
from enum import StrEnum
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field

_LENGTHS = struct.Struct(">II")
MAX_HEADER_BYTES = 64 * 1024 * 1024  # results of the largest request at the largest top_k
MAX_PAYLOAD_BYTES = 2**32 - 1


class ErrorCode(StrEnum):
    OVERLOADED = "overloaded"  # more images wait than the engine may hold
    DEADLINE = "deadline"  # the request's time is over
    INTERNAL = "internal"  # the engine met an error of its own


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Request(_Frozen):
    """A request's header. `sizes` are the images' lengths in bytes; `timeout` is in seconds from its arrival."""

    id: int
    op: Literal["classify", "ping", "cancel"]
    top_k: int = Field(1, ge=1)
    sizes: tuple[Annotated[int, Field(ge=0)], ...] = ()
    timeout: float = Field(30.0, gt=0)


class Label(_Frozen):
    label: str
    class_index: int
    probability: float


class Notice(_Frozen):
    """Something done to an image that its owner should know of, such as a conversion."""

    code: str
    message: str


class ImageError(_Frozen):
    """Why one image has no result: codes of `models.images.ImageRejected`, or `internal`."""

    code: str
    message: str
    hint: str


class ImageResult(_Frozen):
    """One image: `top_k` by falling probability, empty where `error` says why. `index` is its place in the request."""

    index: int
    top_k: tuple[Label, ...] = ()
    warnings: tuple[Notice, ...] = ()
    error: ImageError | None = None


class Timings(_Frozen):
    """Milliseconds in the engine. The first three are of the slowest image each; stages of several images overlap."""

    decode: float
    queue: float
    compute: float
    total: float


class Answer(_Frozen):
    """An engine's answer to `classify`."""

    results: tuple[ImageResult, ...]
    timings_ms: Timings


def frame(header: dict[str, Any], *, payload_length: int = 0) -> bytes:
    """The head of a frame; the payload's bytes are written after it, so that nobody copies them together."""
    head = orjson.dumps(header)
    return _LENGTHS.pack(len(head), payload_length) + head


async def read_frame(reader: asyncio.StreamReader, *, max_payload: int = MAX_PAYLOAD_BYTES) -> tuple[bytes, bytes]:
    """The next frame's header (JSON, not yet parsed) and payload.

    Raises asyncio.IncompleteReadError at the end of the stream and ValueError for lengths that nobody honest sends.
    """
    header_length, payload_length = _LENGTHS.unpack(await reader.readexactly(_LENGTHS.size))
    if header_length > MAX_HEADER_BYTES or payload_length > max_payload:
        raise ValueError(f"a frame of {header_length} + {payload_length} bytes is too large")
    header = await reader.readexactly(header_length)
    payload = await reader.readexactly(payload_length) if payload_length else b""
    return header, payload
