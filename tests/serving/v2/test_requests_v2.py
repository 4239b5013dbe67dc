"""What a request of the Open Inference Protocol may ask for, without any engine."""

import base64
import tracemalloc

import orjson
import pytest

from app.problems import BadRequestError, TooLargeError
from app.services.requests_v2 import Files, Limits, read_request

LIMITS = Limits(images=8, image_bytes=1000, tensor_bytes=1000)


def body(shape: list[int], data: object, *, name: str = "normalised", datatype: str = "FP32") -> bytes:
    return orjson.dumps({"inputs": [{"name": name, "shape": shape, "datatype": datatype, "data": data}]})


def test_numbers_that_are_longer_as_a_tensor_than_as_text_are_refused_before_an_engine_gets_them() -> None:
    short = body([1, 1, 1, 251], [0] * 251)
    assert len(short) < LIMITS.tensor_bytes
    with pytest.raises(TooLargeError, match="larger than 1,000 bytes"):
        read_request(short, None, LIMITS)


#: What `InferRequest.to_rest()` of KServe's client makes; its inputs may have `parameters`.
KSERVE = (
    b'{"id":"4f2a","model_name":"mine","inputs":[{"name":"pixels","shape":[1,1,1,1],"datatype":"UINT8","data":[7]}],'
    b'"outputs":[{"name":"logits"}]}'
)


def test_what_kserves_client_sends_is_read() -> None:
    asked = read_request(KSERVE, None, LIMITS)
    assert (asked.id, asked.names) == ("4f2a", ("logits",))
    assert (asked.named("mine"), asked.named("mine@3")) == ("mine", "mine@3")


@pytest.mark.parametrize(
    ("body", "address", "meant"),
    [
        ({"model_name": None, "model_version": None}, "mine", "mine"),
        ({"model_name": "mine", "model_version": ""}, "mine", "mine"),
        ({"model_name": "mine", "model_version": "3"}, "mine", "mine@3"),
        ({"model_version": 3}, "mine@3", "mine@3"),
        ({"model_name": "mine@3"}, "mine@3", "mine@3"),
        ({"model_name": "mine@3"}, "mine", "mine@3"),
        ({"model_name": "other"}, "mine", None),
        ({"model_name": "mine", "model_version": "3"}, "mine@4", None),
        ({"model_name": "mine@4", "model_version": "3"}, "mine", None),
    ],
)
def test_a_body_may_name_the_model_of_the_address_and_no_other(
    body: dict[str, object], address: str, meant: str | None
) -> None:
    asked = read_request(orjson.dumps({**orjson.loads(KSERVE), "model_name": None} | body), None, LIMITS)
    if meant is None:
        with pytest.raises(BadRequestError, match=f"the address says {address}"):
            asked.named(address)
    else:
        assert asked.named(address) == meant


@pytest.mark.parametrize("parameters", [{"priority": 0, "sequence_id": 0, "timeout": 0}, {"sequence_id": ""}])
def test_parameters_that_say_nothing_by_tritons_rules_are_as_none(parameters: dict[str, object]) -> None:
    assert read_request(orjson.dumps({**orjson.loads(KSERVE), "parameters": parameters}), None, LIMITS).timeout is None


@pytest.mark.parametrize("parameters", [{"priority": 1}, {"sequence_id": 7}, {"sequence_id": "a"}, {"timeout": -1}])
def test_parameters_that_would_not_be_followed_are_refused(parameters: dict[str, object]) -> None:
    with pytest.raises(BadRequestError, match=r"not supported|microseconds"):
        read_request(orjson.dumps({**orjson.loads(KSERVE), "parameters": parameters}), None, LIMITS)


def test_base64_may_be_broken_into_lines_and_be_a_data_url() -> None:
    file = bytes(range(200))
    lines = base64.encodebytes(file).decode()
    for text in (lines, lines.replace("\n", "\r\n\t "), "data:image/png;base64," + lines):
        images = read_request(body([1], [text], name="image", datatype="BYTES"), None, LIMITS).images
        assert isinstance(images, Files)
        assert images.files == [file]


def test_of_binary_elements_no_more_are_built_than_the_shape_has() -> None:
    zeros = bytes(8_000_000)  # two million empty elements
    tensor = {"name": "image", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": len(zeros)}}
    head = orjson.dumps({"inputs": [tensor]})
    request = head + zeros
    tracemalloc.start()
    try:
        with pytest.raises(BadRequestError, match="holds 2 elements, its data more than 2"):
            read_request(request, str(len(head)), LIMITS)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_tensor_without_a_shape_is_refused() -> None:
    with pytest.raises(BadRequestError, match="has no shape"):
        read_request(body([], [5], name="pixels", datatype="UINT8"), None, LIMITS)


def test_millions_of_values_in_json_are_refused_before_anything_is_built_of_them() -> None:
    many = b'{"inputs":[{"name":"pixels","shape":[1],"datatype":"UINT8","data":[' + b"[]," * 4_000_001 + b"0]}]}"
    with pytest.raises(BadRequestError, match="values in JSON"):
        read_request(many, None, LIMITS)
