"""What engines answer, as the rest of the HTTP edge sees it: results, tensors, pictures, health."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from app.inference.protocol import ImageExplanation, ImageResult, Output, Preprocessed, TensorHead, Timings, cut


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """A float32 array: `data` are its values, little-endian, in C order."""

    shape: tuple[int, ...]
    data: bytes


@dataclass(frozen=True, kw_only=True)
class _Answered:
    """`timings_ms` are milliseconds within the engine."""

    model: str
    version: int
    timings_ms: Timings


@dataclass(frozen=True, kw_only=True)
class Tensors(_Answered):
    """Row i of each tensor is of image i."""

    tensors: dict[Output, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Classified(Tensors):
    """`rows[i]` is of image i of the request, row i of each tensor of the i-th image without an error.

    The rows are `ImageResult`s in JSON, as the engine sent them: there may be 256,000 labels in them, and to make
    objects of so many and JSON of these again would hold up everybody for a second.
    """

    rows: list[dict[str, Any]]

    @property
    def results(self) -> tuple[ImageResult, ...]:
        """The rows as objects, for few labels."""
        return tuple(map(ImageResult.model_validate, self.rows))


@dataclass(frozen=True, kw_only=True)
class Explanations(_Answered):
    """`results[i]` is of image i, and `overlays[i]` its PNG file, empty where none was asked for or it has an error."""

    results: tuple[ImageExplanation, ...]
    overlays: tuple[bytes, ...]


@dataclass(frozen=True, kw_only=True)
class Pictures(_Answered):
    """`results[i]` is of image i, and `files[i]` its pixels as a PNG file, empty where it has an error."""

    results: tuple[Preprocessed, ...]
    files: tuple[bytes, ...]


@dataclass(frozen=True, kw_only=True)
class EngineHealth:
    """Whether the default model's engine computed an answer just now, else why not."""

    ready: bool
    model: str
    version: int | None = None
    reason: str | None = None


def tensors(heads: Sequence[TensorHead], payload: bytes) -> dict[Output, Tensor]:
    pieces = cut(payload, [head.nbytes for head in heads])
    return {head.name: Tensor(shape=head.shape, data=bytes(piece)) for head, piece in zip(heads, pieces, strict=True)}


def files(sizes: Sequence[int], payload: bytes) -> tuple[bytes, ...]:
    return tuple(bytes(piece) for piece in cut(payload, sizes))
