"""`benchmarks.neighbours` in its small form: on the starter model, with the float32 network as it was trained."""

import asyncio
from pathlib import Path

import numpy as np
import orjson
import pytest

from benchmarks.neighbours import TOLERANCE, Alone, Findings, compare, measure
from benchmarks.soak.http_load import Answer
from benchmarks.soak.service import Service
from benchmarks.spoilt import spoilt

KINDS = {"cut", "bits turned", "other type", "empty", "said to be huge"}


def test_corrupt_images_change_nothing_for_those_beside_them(tmp_path: Path) -> None:
    async def main() -> None:
        service = Service(tmp_path / "data", precision="exact", runtime="eager")
        service.start()
        try:
            await service.ready()
            found = await measure(service.address, batches=30, tolerance=TOLERANCE["exact"], files=60)
        finally:
            await service.stop()
        assert found["passed"], found
        assert found["requests"] == 30
        assert found["good_images"] > 150
        assert set(found["corrupt_images"]) == KINDS

    asyncio.run(asyncio.wait_for(main(), 240))


def test_files_are_spoilt_in_every_way_and_the_same_each_time() -> None:
    files = spoilt(np.random.default_rng(3), count=10)
    assert {each.kind for each in files} == KINDS
    assert files == spoilt(np.random.default_rng(3), count=10)


GOOD = Alone(b"", probabilities={2: 0.7, 0: 0.2, 1: 0.1})
BAD = Alone(b"", error=("corrupt_image", "it is cut"), kind="cut")


def result(index: int, *, values: dict[int, float], error: tuple[str, str] | None = None) -> dict[str, object]:
    top_k = [{"class_index": at, "probability": value} for at, value in values.items()]
    return {"index": index, "top_k": top_k, "error": error and {"code": error[0], "message": error[1]}}


RIGHT = [result(0, values={2: 0.7, 0: 0.2, 1: 0.1}), result(1, values={}, error=BAD.error)]


@pytest.mark.parametrize(
    ("results", "wrong"),
    [
        (RIGHT, None),
        ([result(0, values={2: 0.7005, 0: 0.1995, 1: 0.1}), RIGHT[1]], None),
        ([result(0, values={2: 0.71, 0: 0.19, 1: 0.1}), RIGHT[1]], "probability"),
        ([result(0, values={2: 0.7, 0: 0.3}), RIGHT[1]], "classes"),
        ([result(0, values={}, error=BAD.error), RIGHT[1]], "good image refused"),
        (
            [RIGHT[0], result(1, values={}, error=("corrupt_image", "its header is damaged"))],
            "error of a corrupt image",
        ),
        ([RIGHT[0], result(1, values={2: 1.0})], "error of a corrupt image"),
        (RIGHT[::-1], "order"),
    ],
)
def test_a_wrong_answer_to_one_of_several_is_told(results: list[dict[str, object]], wrong: str | None) -> None:
    found = Findings()
    compare([GOOD, BAD], Answer(200, 0.1, orjson.dumps({"results": results})), found, tolerance=1e-3)
    assert list(found.wrong) == ([] if wrong is None else [wrong])
    compare([GOOD, BAD], Answer(503, 0.1), found, tolerance=1e-3)
    assert found.wrong["request"] == 1
