"""What travels between the HTTP processes, the fleet and an engine over its unix socket.

A frame is a 4-byte big-endian header length, a 4-byte payload length, the header (JSON) and the payload. A request's
payload is its images' files, or its tensor; an answer's is its tensors (float32, little-endian) or PNG files, end to
end. Requests are `classify`, `infer`, `explain` and `preprocess` (answered by results or an error), `ping` (answered
after a real inference through the same queue) and `cancel` (never answered: the request with this id is dropped).
Answers come in any order.
"""

import asyncio
import struct
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

_LENGTHS = struct.Struct(">II")
MAX_HEADER_BYTES = 64 * 1024 * 1024  # results of the largest request at the largest top_k
MAX_PAYLOAD_BYTES = 2**32 - 1
DAMAGED_STATUS = 3  # an engine's exit status where its files or golden outputs are not the model's


class ErrorCode(StrEnum):
    OVERLOADED = "overloaded"  # more images wait than the engine may hold
    DEADLINE = "deadline"  # the request's time is over
    REFUSED = "refused"  # this model cannot be asked so: the request is at fault
    INTERNAL = "internal"  # the engine met an error of its own


class Output(StrEnum):
    """What one forward pass gives for each image, float32."""

    PROBABILITIES = "probabilities"  # (K,): softmax(logits / temperature), calibrated where the model is
    LOGITS = "logits"  # (K,)
    EMBEDDING = "embedding"  # (D,): the input of the last layer


class TensorInput(StrEnum):
    """An image that a client has prepared itself, as far as the network needs it."""

    PIXELS = "pixels"  # uint8 (N, H, W, C), what `models.images.prepare` gives
    NORMALISED = "normalised"  # float32 (N, C, H, W), `(pixels / 255 - mean) / std`


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class _Asking(_Frozen):
    """`timeout` is in seconds from the request's arrival; `traceparent` is its W3C Trace Context, for logs."""

    id: int
    traceparent: str | None = None
    timeout: float = Field(30.0, gt=0)


class _Images(_Asking):
    """`sizes` are the lengths in bytes of the images' files, which lie end to end in the payload."""

    sizes: tuple[Annotated[int, Field(ge=0)], ...] = ()

    def files(self, payload: bytes) -> list[memoryview]:
        """Each image's file. Raises ValueError where the sizes do not add up to the payload."""
        return cut(payload, self.sizes)


class Classify(_Images):
    op: Literal["classify"]
    top_k: int = Field(1, ge=1)
    outputs: tuple[Output, ...] = ()


class Infer(_Asking):
    """`shape` is the whole tensor's, the images first."""

    op: Literal["infer"]
    input: TensorInput
    shape: tuple[Annotated[int, Field(ge=0)], ...]
    outputs: tuple[Output, ...]


class Explain(_Images):
    """For `class_index`, or where that is None for each image's likeliest class; with a picture where `overlay`."""

    op: Literal["explain"]
    class_index: int | None = None
    overlay: bool = False


class Preprocess(_Images):
    op: Literal["preprocess"]


class Ping(_Asking):
    op: Literal["ping"]


class Cancel(_Asking):
    op: Literal["cancel"]


Work = Classify | Infer | Explain | Preprocess | Ping
Request = Work | Cancel
_REQUEST: TypeAdapter[Request] = TypeAdapter(Annotated[Request, Field(discriminator="op")])


def parse_request(header: bytes) -> Request:
    """A request's header. Raises pydantic's ValidationError."""
    return _REQUEST.validate_json(header)


class Label(_Frozen):
    label: str
    class_index: int
    probability: float


class Notice(_Frozen):
    """Something done to an image that its owner should know of, such as a conversion."""

    code: str
    message: str


class ImageError(_Frozen):
    """Why one image has no result; docs/errors.md lists the codes."""

    code: str
    message: str
    hint: str


class _Result(_Frozen):
    """Of one image; `index` is its place in the request. Where `error` says why, there is nothing else."""

    index: int
    warnings: tuple[Notice, ...] = ()
    error: ImageError | None = None


class ImageResult(_Result):
    """One image: `top_k` by falling probability."""

    top_k: tuple[Label, ...] = ()


class ImageExplanation(_Result):
    """Grad-CAM: `heatmap` (h, w) over the cells of the last stage, 0 to 1, for the class of `label`.

    `png` is how many bytes of the payload are this image's overlay.
    """

    label: Label | None = None
    heatmap: tuple[tuple[float, ...], ...] = ()
    png: int = 0


class Preprocessed(_Result):
    """What the network saw: `png` bytes of the payload hold the pixels (H, W, C) = `shape`.

    `sha256`, in hex, is of the array's bytes, uint8 in C order, not of the PNG file.
    """

    shape: tuple[int, ...] = ()
    sha256: str = ""
    png: int = 0


class Timings(_Frozen):
    """Milliseconds in the engine. The first three are of the image that was ready last: nearly the total together."""

    decode: float
    queue: float
    compute: float
    total: float


class TensorHead(_Frozen):
    """A float32 tensor of an answer, whose values lie in its payload."""

    name: Output
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        size = 4
        for length in self.shape:
            size *= length
        return size


class _Answer(_Frozen):
    """To the request of the same name. `payload` goes behind the header, piece by piece; it is no part of it."""

    timings_ms: Timings
    payload: tuple[bytes, ...] = Field((), exclude=True, repr=False)


class _WithTensors(_Answer):
    tensors: tuple[TensorHead, ...] = ()


class ClassifyAnswer(_WithTensors):
    """Row i of each tensor is of the i-th image without an error."""

    results: tuple[ImageResult, ...]


class InferAnswer(_WithTensors):
    """Row i of each tensor is of image i."""


class ExplainAnswer(_Answer):
    """Its payload are the overlays."""

    results: tuple[ImageExplanation, ...]


class PreprocessAnswer(_Answer):
    """Its payload are the pixels as PNG files."""

    results: tuple[Preprocessed, ...]


def cut(payload: bytes, sizes: Sequence[int]) -> list[memoryview]:
    """The payload in pieces of these sizes, not copied. Raises ValueError where they do not add up to it."""
    if sum(sizes) != len(payload):
        raise ValueError("the sizes do not add up to the payload")
    view, start, pieces = memoryview(payload), 0, []
    for size in sizes:
        pieces.append(view[start : start + size])
        start += size
    return pieces


class FrameTooLarge(ValueError):
    """What was to be sent does not fit into a frame: its reader would close the connection, which others share."""


def frame(header: dict[str, Any], *, payload_length: int = 0) -> bytes:
    """The head of a frame; the payload's bytes are written after it, so that nobody copies them together.

    Raises FrameTooLarge.
    """
    head = orjson.dumps(header)
    if len(head) > MAX_HEADER_BYTES or payload_length > MAX_PAYLOAD_BYTES:
        size = len(head) + payload_length
        raise FrameTooLarge(f"{size:,} bytes do not fit into one frame: send fewer images at once")
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
