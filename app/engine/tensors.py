"""Between the bytes of a frame and arrays."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from app.inference.protocol import Output, TensorHead, TensorInput
from models.manifest import Preprocessing


class Refused(ValueError):
    """The request does not fit this model; the message is for its sender."""


def read_tensor(
    data: bytes | memoryview, kind: TensorInput, shape: Sequence[int], to: Preprocessing
) -> npt.NDArray[Any]:
    """A client's images: pixels uint8 (N, H, W, C), or the network's own input float32 (N, C, H, W). Raises Refused."""
    pixels = kind is TensorInput.PIXELS
    dtype: np.dtype[Any] = np.dtype("u1" if pixels else "<f4")
    image = (to.height, to.width, to.channels) if pixels else (to.channels, to.height, to.width)
    if len(shape) != 4 or tuple(shape[1:]) != image or shape[0] < 1:
        raise Refused(f"{kind} of this model are {dtype.name} (N, {', '.join(map(str, image))}), not {list(shape)}")
    if math.prod(shape) * dtype.itemsize != len(data):
        raise Refused(f"{list(shape)} of {dtype.name} are {math.prod(shape) * dtype.itemsize} bytes, not {len(data)}")
    array = np.frombuffer(data, dtype).reshape(shape)
    if not pixels and not np.isfinite(array).all():
        raise Refused("the tensor holds values that are not finite")
    return array


def pack(
    arrays: dict[Output, Sequence[npt.NDArray[np.floating]]],
) -> tuple[tuple[TensorHead, ...], tuple[bytes, ...]]:
    """Rows (D,) of each output as tensors (N, D), float32, little-endian: their heads and their bytes."""
    heads, payload = [], []
    for name, rows in arrays.items():
        stacked = np.stack(rows).astype("<f4") if rows else np.zeros((0, 0), "<f4")
        heads.append(TensorHead(name=name, shape=stacked.shape))
        payload.append(stacked.tobytes())
    return tuple(heads), tuple(payload)
