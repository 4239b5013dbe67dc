"""The tensors of the Open Inference Protocol: out of a request's JSON or binary data, and into an answer's.

Binary data are Triton's: tensors lie end to end behind the JSON, little-endian, in C order; a BYTES element has its
length before it, 4 bytes. In JSON a BYTES element is an image in base64.
"""

import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from app.base64_files import decoded
from app.inference.protocol import TensorInput
from app.problems import BadRequestError
from app.schemas.inference_v2 import InputTensor

_LENGTH = struct.Struct("<I")
_MOST_DIGITS = 20  # of a length; Python itself refuses to make a number of thousands of them
_DTYPES: dict[TensorInput, np.dtype[Any]] = {
    TensorInput.PIXELS: np.dtype("u1"),
    TensorInput.NORMALISED: np.dtype("<f4"),
}
_NO_HINT = "docs/api.md has an example of each input."


def refused(detail: str, *, hint: str = _NO_HINT) -> BadRequestError:
    return BadRequestError("invalid_request", f"{detail}.", hint=hint)


@dataclass(frozen=True)
class Encoded:
    """An answer's tensor: its JSON, and its binary data where it has any."""

    head: dict[str, Any]
    binary: bytes = b""


def split_body(body: bytes, header_length: str | None) -> tuple[bytes, memoryview]:
    """A request's JSON and binary data, by its Inference-Header-Content-Length. Raises BadRequestError."""
    if header_length is None:
        return body, memoryview(b"")
    digits = header_length.isascii() and header_length.isdigit() and len(header_length) <= _MOST_DIGITS
    if not (digits and int(header_length) <= len(body)):
        raise refused(
            f"Inference-Header-Content-Length {header_length[:20]!r} is no length within the body of {len(body)} bytes",
            hint="It is how many bytes of the body, from its beginning, are JSON.",
        )
    return body[: int(header_length)], memoryview(body)[int(header_length) :]


def take_binary(inputs: Sequence[InputTensor], binary: memoryview) -> list[memoryview | None]:
    """Each input's part of the binary data, None for one that has its data in JSON. Raises BadRequestError."""
    parts: list[memoryview | None] = []
    start = 0
    for each in inputs:
        size = each.parameters.get("binary_data_size")
        if size is None:
            parts.append(None)
            continue
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(binary) - start:
            raise refused(f"input {each.name}: binary_data_size {str(size)[:20]} does not fit the body")
        if each.data is not None:
            raise refused(f"input {each.name} has both `data` and `binary_data_size`")
        parts.append(binary[start : start + size])
        start += size
    if start != len(binary):
        raise refused(f"{len(binary) - start} bytes behind the JSON belong to no input")
    return parts


def read_images(tensor: InputTensor, binary: memoryview | None) -> list[bytes]:
    """A BYTES tensor's elements, shape (N,) or (N, 1): the files of images. Raises BadRequestError."""
    base64 = tensor.parameters.get("content_type") == "base64"
    count = math.prod(tensor.shape)
    if len(tensor.shape) not in (1, 2) or tensor.shape[0] != count or not count:
        raise refused(f"input {tensor.name} has shape (N) or (N, 1), not {tensor.shape}")
    if binary is not None:
        elements = _elements(tensor.name, binary)
    else:
        elements, base64 = (_text(tensor.name, each) for each in _flat(tensor)), True
    files = list(islice(elements, count + 1))  # an element may be four bytes: all of them would be too many objects
    if len(files) != count:
        said = f"more than {count}" if len(files) > count else len(files)
        raise refused(f"input {tensor.name}: shape {tensor.shape} holds {count} elements, its data {said}")
    return [_decoded(tensor.name, each) for each in files] if base64 else files


def read_numbers(tensor: InputTensor, kind: TensorInput, binary: memoryview | None) -> bytes:
    """A UINT8 or FP32 tensor's values, little-endian, in C order. Raises BadRequestError."""
    dtype = _DTYPES[kind]
    count = math.prod(tensor.shape)
    if binary is not None:
        if len(binary) != count * dtype.itemsize:
            wanted = count * dtype.itemsize
            raise refused(f"input {tensor.name}: shape {tensor.shape} takes {wanted} bytes, not {len(binary)}")
        return bytes(binary)
    values = _flat(tensor)
    if not all(type(each) in (int, float) for each in values):  # an array of texts is as wide as the longest of them
        raise refused(f"input {tensor.name}: its data are not numbers")
    if len(values) != count:
        raise refused(f"input {tensor.name}: shape {tensor.shape} holds {count} values, its data {len(values)}")
    array = np.array(values) if values else np.zeros(0)
    if array.dtype.kind not in "iuf":  # of 64 bits with a sign and without one
        raise refused(f"input {tensor.name}: its data are not numbers of one kind")
    if kind is TensorInput.PIXELS and not np.all((array >= 0) & (array <= 255) & (array == np.rint(array))):
        raise refused(f"input {tensor.name}: its values are not all whole numbers from 0 to 255")
    with np.errstate(over="ignore"):  # what is too large becomes infinite, which the engine refuses
        data: bytes = array.astype(dtype).tobytes()
    return data


def numbers(name: str, array: npt.NDArray[np.float32], *, binary: bool) -> Encoded:
    """An FP32 output (N, D)."""
    head = {"name": name, "datatype": "FP32", "shape": list(array.shape)}
    if binary:
        data = array.astype("<f4").tobytes()
        return Encoded({**head, "parameters": {"binary_data_size": len(data)}}, data)
    return Encoded({**head, "data": array.ravel()})


def classification(
    name: str, array: npt.NDArray[np.float32], classes: Sequence[str], *, count: int, binary: bool
) -> Encoded:
    """Triton's classification of an output (N, K): (N, k) strings `value:index:label`, the largest value first."""
    texts: list[str] = []
    for row in array:
        order = np.argsort(-row, kind="stable")[:count]
        best = zip(order.tolist(), row[order].tolist(), strict=True)
        texts += [f"{value:f}:{index}:{classes[index]}" for index, value in best]
    head = {"name": name, "datatype": "BYTES", "shape": [len(array), min(count, array.shape[1])]}
    if binary:
        elements = [text.encode() for text in texts]
        data = b"".join(_LENGTH.pack(len(each)) + each for each in elements)
        return Encoded({**head, "parameters": {"binary_data_size": len(data)}}, data)
    return Encoded({**head, "data": texts})


def _elements(name: str, binary: memoryview) -> Iterator[bytes]:
    """The elements of binary BYTES data. Raises BadRequestError where a length leads out of it."""
    start = 0
    while start < len(binary):
        head = binary[start : start + _LENGTH.size]
        length = _LENGTH.unpack(head)[0] if len(head) == _LENGTH.size else len(binary)
        start += _LENGTH.size
        if start + length > len(binary):
            raise refused(f"input {name}: an element's length leads out of its data")
        yield bytes(binary[start : start + length])
        start += length


def _flat(tensor: InputTensor) -> list[Any]:
    """`data` in row-major order, however deeply nested it came. Raises BadRequestError."""
    values = tensor.data
    if not isinstance(values, list):
        raise refused(f"input {tensor.name} has neither an array as `data` nor `binary_data_size`")
    for _ in range(len(tensor.shape) - 1):
        if not (values and isinstance(values[0], list)):
            break
        if not all(isinstance(each, list) for each in values):
            raise refused(f"input {tensor.name}: its data are nested unevenly")
        values = [value for each in values for value in each]
    return values


def _text(name: str, value: object) -> bytes:
    if not isinstance(value, str):
        raise refused(f"input {name}: an element is no string", hint="In JSON an image is a string of base64.")
    return value.encode()


def _decoded(name: str, data: bytes) -> bytes:
    try:
        return decoded(data)
    except ValueError as error:
        hint = "Standard base64 with padding; or send the file itself as binary data."
        raise refused(f"input {name}: an element is not base64: {error}", hint=hint) from error
