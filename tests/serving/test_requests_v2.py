"""What a request of the Open Inference Protocol may ask for, without any engine."""

import orjson
import pytest

from app.problems import BadRequestError, TooLargeError
from app.services.requests_v2 import Limits, read_request

LIMITS = Limits(images=8, image_bytes=1000, tensor_bytes=1000)


def body(shape: list[int], data: object, *, name: str = "normalised", datatype: str = "FP32") -> bytes:
    return orjson.dumps({"inputs": [{"name": name, "shape": shape, "datatype": datatype, "data": data}]})


def test_numbers_that_are_longer_as_a_tensor_than_as_text_are_refused_before_an_engine_gets_them() -> None:
    short = body([1, 1, 1, 251], [0] * 251)
    assert len(short) < LIMITS.tensor_bytes
    with pytest.raises(TooLargeError, match="larger than 1,000 bytes"):
        read_request(short, None, LIMITS)


def test_a_tensor_without_a_shape_is_refused() -> None:
    with pytest.raises(BadRequestError, match="has no shape"):
        read_request(body([], [5], name="pixels", datatype="UINT8"), None, LIMITS)


def test_millions_of_values_in_json_are_refused_before_anything_is_built_of_them() -> None:
    many = b'{"inputs":[{"name":"pixels","shape":[1],"datatype":"UINT8","data":[' + b"[]," * 4_000_001 + b"0]}]}"
    with pytest.raises(BadRequestError, match="values in JSON"):
        read_request(many, None, LIMITS)
