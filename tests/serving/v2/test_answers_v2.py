"""Answers of the Open Inference Protocol that are large: bounded, and made where they hold up nobody."""

import asyncio
import threading
from types import SimpleNamespace
from typing import Any, cast

import orjson
import pytest

from app.inference.answers import Tensor, Tensors
from app.inference.protocol import Output, Timings
from app.problems import BadRequestError, InvalidError
from app.services import inference_v2
from app.services.inference_v2 import InferenceV2, Inferred
from store.settings import Settings


def infer(monkeypatch: pytest.MonkeyPatch, *, images: int, width: int, **parameters: object) -> tuple[Inferred, bool]:
    """What an engine's logits for so many images and classes become, and whether the event loop's thread made it."""
    tensor = Tensor(shape=(images, width), data=bytes(4 * images * width))
    timings = Timings(decode=0, queue=0, compute=0, total=0)
    encode, where = inference_v2._encoded, list[int]()

    async def answered(*_: object, **__: object) -> Tensors:
        return Tensors(model="toy", version=1, timings_ms=timings, tensors={Output.LOGITS: tensor})

    def watched(*args: Any) -> Inferred:
        where.append(threading.get_ident())
        return encode(*args)

    monkeypatch.setattr(inference_v2, "_encoded", watched)
    classes = tuple(f"class {number}" for number in range(width))
    service = InferenceV2(
        cast(Any, SimpleNamespace(infer=answered)),
        cast(Any, None),
        cast(Any, None),
        cast(Any, SimpleNamespace(manifest=lambda *_: SimpleNamespace(classes=classes))),
        Settings(),
    )
    pixels = {"name": "pixels", "shape": [1], "datatype": "UINT8", "data": [0]}
    asked = {"inputs": [pixels], "outputs": [{"name": "logits", "parameters": parameters}]}
    answer = asyncio.run(service.infer(orjson.dumps(asked), header_length=None, model="toy", version=None))
    return answer, where == [threading.get_ident()]


@pytest.mark.parametrize(("images", "in_the_loop"), [(10, True), (11, False)])
def test_many_labels_are_ranked_in_a_thread(monkeypatch: pytest.MonkeyPatch, images: int, in_the_loop: bool) -> None:
    answer, here = infer(monkeypatch, images=images, width=1000, classification=5000)
    (output,) = orjson.loads(answer.body)["outputs"]
    assert output["shape"] == [images, 1000]
    assert output["data"][1] == "0.000000:1:class 1"
    assert here == in_the_loop


@pytest.mark.parametrize("binary", [True, False])
def test_more_labels_than_one_answer_has_room_for_are_refused(monkeypatch: pytest.MonkeyPatch, binary: bool) -> None:
    with pytest.raises(InvalidError, match="10,000 labels for each of 100 images") as refused:
        infer(monkeypatch, images=100, width=10_000, classification=99_999, binary_data=binary)
    assert refused.value.code == "too_many_labels"
    most = int(refused.value.hint.partition("`classification` of ")[2].partition(" ")[0].replace(",", ""))
    answer, _ = infer(monkeypatch, images=100, width=10_000, classification=most, binary_data=binary)
    assert orjson.loads(answer.body[: answer.header_length])["outputs"][0]["shape"] == [100, most]


def test_more_numbers_in_json_than_a_request_may_have_are_refused_and_in_binary_data_they_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(BadRequestError, match="4,000,008 values are too many in JSON"):
        infer(monkeypatch, images=8, width=500_001)
    answer, _ = infer(monkeypatch, images=8, width=500_001, binary_data=True)
    assert answer.header_length is not None
    assert len(answer.body) - answer.header_length == 4 * 8 * 500_001
