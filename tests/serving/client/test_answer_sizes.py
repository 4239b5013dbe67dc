"""Answers travel in frames, which are bounded: what does not fit is refused, and costs nobody else an answer."""

import asyncio
import gc
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import orjson
import pytest
from engine_scene import DONE, Scene, with_scene

from app.engine.server import Server
from app.inference import protocol, sizes
from app.inference.errors import TooManyLabels
from app.inference.protocol import ClassifyAnswer, ImageResult, Timings
from app.services.classification import Classification, ImageIn
from benchmarks.manifests import lineage, write_hollow
from models.catalog import Catalog

if TYPE_CHECKING:
    from app.engine.pipeline import Pipeline

TIMINGS = Timings(decode=0, queue=0, compute=0, total=0)


def test_labels_that_an_answer_has_no_room_for_are_refused_before_anybody_is_asked(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        scene.route(await scene.engine("engine", lambda _: DONE))
        names = tuple(f"{index:0200}" for index in range(20_000))
        wide = write_hollow(tmp_path / "wide", lineage("job_b"), classes=names)
        Catalog(scene.layout.models).publish("wide", wide, "job_b")
        with pytest.raises(TooManyLabels, match="20,000 labels for each of 256 images") as refused:
            await scene.engines.classify("wide", [b"x"] * 256, top_k=100_000, timeout=10)
        assert 500 < refused.value.most < 20_000
        assert scene.headers == []
        await scene.engines.classify("toy", [b"x"] * 256, top_k=100_000, timeout=10)  # which has three classes

    with_scene(tmp_path, test)


def seconds_of_reading(body: bytes) -> float:
    """CPU time of this thread."""
    began = time.thread_time()
    orjson.loads(body)
    return time.thread_time() - began


def test_the_labels_of_the_largest_request_hold_up_nobody_for_longer_than_reading_them_takes(tmp_path: Path) -> None:
    """In CPU time of the event loop's thread: ten times as much where an object was made of each of 256,000 labels."""
    label = {"label": "a class", "class_index": 7, "probability": 0.001}
    result = {"index": 0, "warnings": [], "error": None, "top_k": [label] * 1000}
    header = {**DONE, "results": [result] * 256}
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        last = time.thread_time()
        while True:
            await asyncio.sleep(0)
            now = time.thread_time()
            longest, last = max(longest, now - last), now

    async def test(scene: Scene) -> None:
        scene.route(await scene.engine("engine", lambda _: header))
        watching = asyncio.create_task(watch())
        images = [ImageIn(b"x")] * 256
        answer = await Classification(scene.engines, timeout=20).classify(images, model="toy", top_k=1000)
        await asyncio.sleep(0)  # what was done last is seen only by another look
        watching.cancel()
        assert [len(each["top_k"]) for each in answer["results"]] == [1000] * 256

    body = orjson.dumps(header)
    gc.collect()
    gc.freeze()  # as a server does: a full collection looks through whatever other tests have left, in any turn
    try:
        reading = max(seconds_of_reading(body) for _ in range(5))
        with_scene(tmp_path, test)
    finally:
        gc.unfreeze()
    assert longest < 3 * reading


def test_as_many_labels_as_are_let_through_fit_whatever_they_are_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "MAX_HEADER_BYTES", 500_000)
    for name in ("x", "é" * 200, "\x00" * 200, '"' * 200):
        classes = [name, *map(str, range(5000))]
        most = sizes.most_labels(classes, images=7)
        label = {"label": name, "class_index": 99_999, "probability": 1.2345678901234567e-100}
        header = {"results": [{"index": 6, "warnings": [], "error": None, "top_k": [label] * most}] * 7}
        assert 300_000 < len(orjson.dumps(header)) <= 500_000


def test_an_answer_that_does_not_fit_into_a_frame_is_an_error_of_its_own_request_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wide:
        """A pipeline that has as many results as images."""

        async def classify(self, images: Sequence[memoryview], **_: object) -> ClassifyAnswer:
            return ClassifyAnswer(results=tuple(map(result, range(len(images)))), timings_ms=TIMINGS)

    def result(index: int) -> ImageResult:
        return ImageResult(index=index)

    async def test(scene: Scene) -> None:
        monkeypatch.setattr(protocol, "MAX_HEADER_BYTES", 2000)
        socket = scene.layout.run / "engine"
        server = Server(cast("Pipeline", Wide()), max_payload=1000)
        await server.listen(socket)
        scene.route(str(socket))
        small = [scene.engines.classify("toy", [b"x"], timeout=10) for _ in range(2)]
        large = scene.engines.classify("toy", [b"x"] * 100, timeout=10)
        found = await asyncio.gather(small[0], large, small[1], return_exceptions=True)
        assert [type(each).__name__ for each in found] == ["Classified", "RequestRefused", "Classified"]
        assert "bytes do not fit into one frame" in str(found[1])
        await server.drain(seconds=5)

    with_scene(tmp_path, test)
