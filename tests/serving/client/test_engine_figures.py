"""What is known of the way to engines: each request's outcome, engines that are full, what they tell of themselves."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from engine_scene import DONE, Scene, with_scene

from app import tracing
from app.inference import asking, queues
from app.inference.errors import DeadlineExceeded, EngineOverloaded
from app.inference.figures import Asked, EngineFigures
from app.inference.protocol import Output, TensorInput
from app.inference.routes import EngineState, Route, Routes, RoutesFile

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
BAD = {"code": "corrupt_image", "message": "cut", "hint": "resend"}
FULL = {"error": {"code": "overloaded", "message": "full"}}
MIXED = {**DONE, "results": [{"index": 0}, {"index": 1, "error": BAD}, {"index": 2}]}


@asynccontextmanager
async def told(scene: Scene) -> AsyncIterator[list[Asked]]:
    """What was told when the block ends, of which the last is told just after its answer."""
    heard: list[Asked] = []
    scene.engines.asking.watch = heard.append
    yield heard
    await asyncio.sleep(0)


def test_every_request_is_told_with_its_outcome_its_images_and_its_times(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        answers: list[dict[str, Any]] = [MIXED, {"error": {"code": "overloaded", "message": "full"}}, {}, {}]
        scene.route(await scene.engine("engine", lambda header: answers[header["id"] - 1]))
        async with told(scene) as heard:
            await scene.engines.classify("toy", [b"x"] * 3, timeout=10)
            with pytest.raises(EngineOverloaded):
                await scene.engines.classify("toy", [b"larger than those that follow"], timeout=10)
            with pytest.raises(DeadlineExceeded):
                await scene.engines.classify("toy", [b"x"], timeout=0.05)
            leaving = asyncio.create_task(scene.engines.classify("toy", [b"x"], timeout=10))
            for _ in range(5):  # with the cancel of the one before
                await scene.arrivals.get()
            leaving.cancel()
            await asyncio.gather(leaving, return_exceptions=True)
        assert [each.outcome for each in heard] == ["answered", "overloaded", "deadline", "cancelled"]
        assert (heard[0].model, heard[0].version, heard[0].operation) == ("toy", 1, "classify")
        assert (heard[0].good, heard[0].bad) == (2, 1)
        assert set(heard[0].milliseconds) == {"decode", "queue", "compute", "total"}

    with_scene(tmp_path, test)


def test_an_engine_that_was_lost_is_told_beside_the_answer_of_the_next(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        new = await scene.engine("new", lambda _: DONE)

        def die(_: dict[str, Any]) -> None:
            scene.route(new)

        scene.route(await scene.engine("dying", die))
        async with told(scene) as heard:
            await scene.engines.classify("toy", [b"x"], timeout=10)
        assert [each.outcome for each in heard] == ["lost", "answered"]

    with_scene(tmp_path, test)


def test_an_engine_that_said_it_is_full_is_believed_for_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(scene: Scene) -> None:
        answer: dict[str, Any] = FULL
        scene.route(await scene.engine("engine", lambda _: answer))
        assert not scene.engines.refusing("toy", "classify", size=1)
        monkeypatch.setattr(queues, "_FULL_SECONDS", 0.0)
        with pytest.raises(EngineOverloaded, match="full"):
            await scene.engines.classify("toy", [b"x"], timeout=30)
        assert not scene.engines.refusing("toy", "classify", size=1)
        monkeypatch.setattr(queues, "_FULL_SECONDS", 60.0)
        with pytest.raises(EngineOverloaded, match="full"):
            await scene.engines.classify("toy", [b"x"], timeout=10)
        assert not scene.engines.refusing("toy", "classify", size=1)  # which has the server's own 30 seconds
        with pytest.raises(EngineOverloaded, match="full"):
            await scene.engines.classify("toy", [b"x"], timeout=30)
        assert scene.engines.refusing("toy", "classify", size=1)
        assert scene.engines.refusing("toy@1", "classify", size=1)
        asked, answer = len(scene.headers), DONE
        with pytest.raises(EngineOverloaded, match="too much waits"):
            await scene.engines.classify("toy", [b"x"], timeout=10)
        assert len(scene.headers) == asked

    with_scene(tmp_path, test)


def test_a_large_request_that_was_refused_shuts_the_door_for_no_smaller_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(scene: Scene) -> None:
        monkeypatch.setattr(queues, "_FULL_SECONDS", 60.0)
        scene.route(await scene.engine("engine", lambda header: FULL if len(header["sizes"]) > 100 else DONE))
        for _ in range(3):
            with pytest.raises(EngineOverloaded):
                await scene.engines.classify("toy", [b"x"] * 256, timeout=10)
            assert not scene.engines.refusing("toy", "classify", size=1)
            await scene.engines.classify("toy", [b"x"], timeout=10)
        with pytest.raises(EngineOverloaded):
            await scene.engines.explain("toy", [b"x"] * 256, class_index=None, overlay=False, timeout=10)
        await scene.engines.classify("toy", [b"x"] * 99, timeout=10)

    with_scene(tmp_path, test)


def test_what_is_foreseen_to_come_too_late_is_counted_as_what_an_engine_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(scene: Scene) -> None:
        monkeypatch.setattr(asking, "_PATIENCE", 0.0)
        scene.route(await scene.engine("engine", lambda header: DONE if header["id"] == 1 else {}))
        async with told(scene) as heard:
            await scene.engines.classify("toy", [b"x"] * 20, timeout=10)
            long = asyncio.create_task(scene.engines.classify("toy", [b"x"], timeout=10))
            for _ in range(2):
                await scene.arrivals.get()
            with pytest.raises(EngineOverloaded, match="too much waits"):
                await scene.engines.classify("toy", [b"x"], timeout=10)
            long.cancel()
            await asyncio.gather(long, return_exceptions=True)
        assert [each.outcome for each in heard] == ["answered", "overloaded", "cancelled"]
        assert (heard[1].model, heard[1].version, heard[1].operation) == ("toy", 1, "classify")

    with_scene(tmp_path, test)


def test_work_apart_from_classification_does_not_make_that_look_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(scene: Scene) -> None:
        monkeypatch.setattr(asking, "_PATIENCE", 0.0)  # whatever is known to take any time is refused
        engines, normalised, shape = scene.engines, TensorInput.NORMALISED, [20, 1, 1, 1]
        work: list[Callable[[], Awaitable[object]]] = [
            lambda: engines.explain("toy", [b"x"] * 20, class_index=None, overlay=False, timeout=10),
            lambda: engines.preprocess("toy", [b"x"] * 20, timeout=10),
            lambda: engines.infer("toy", b"x", kind=normalised, shape=shape, outputs=[Output.LOGITS], timeout=10),
        ]
        silent = False
        answers = {"infer": {**DONE, "tensors": [{"name": "logits", "shape": [0, 0]}]}, "classify": DONE}

        def answer(header: dict[str, Any]) -> dict[str, Any]:
            if silent and header["op"] != "classify":
                return {}
            return answers.get(header["op"], {**DONE, "results": []})

        scene.route(await scene.engine("engine", answer))
        for each in work:
            await each()  # of each the pace is known now
        silent = True
        long = [asyncio.ensure_future(each()) for each in work]
        for _ in range(6):
            await scene.arrivals.get()
        assert not engines.refusing("toy", "classify", size=1)
        await engines.classify("toy", [b"x"], timeout=10)
        for each in work:  # but what is of a kind waits for its own
            with pytest.raises(EngineOverloaded):
                await each()
        for task in long:
            task.cancel()
        await asyncio.gather(*long, return_exceptions=True)

    with_scene(tmp_path, test)


def test_engines_are_asked_for_their_figures_and_one_that_does_not_answer_has_none(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        pong = {"images": 7, "idle_seconds": 0.0, "batches": {"1": 3, "32": 2}}
        scene.route(await scene.engine("engine", lambda _: pong))
        (busy,) = await scene.engines.figures()
        assert (busy.model, busy.version, busy.ready, busy.restarts, busy.waiting) == ("toy", 1, True, 0, 7)
        assert (busy.batches, "engine" in busy.process) == ({1: 3, 32: 2}, True)
        leaving = Route(model="toy", version=1, state=EngineState.DRAINING, socket="old", device="cpu")
        Routes(engines=(*RoutesFile(scene.layout.routes).read().engines, leaving)).write(scene.layout.routes)
        assert await scene.engines.figures() == [busy]  # of a version that was loaded again, once
        scene.route("nowhere")
        assert await scene.engines.figures() == [EngineFigures("toy", 1, ready=False, restarts=0)]
        scene.route("nowhere", EngineState.STARTING)
        assert await scene.engines.figures() == [EngineFigures("toy", 1, ready=False, restarts=0)]

    with_scene(tmp_path, test)


def test_a_trace_goes_on_to_the_engine_and_hears_how_long_its_stages_took(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        scene.route(await scene.engine("engine", lambda _: DONE))
        trace = tracing.Trace(PARENT)
        tracing.enter(trace)
        await scene.engines.classify("toy", [b"x"], timeout=10)
        assert scene.headers[-1]["traceparent"] == PARENT
        assert set(trace.milliseconds) == {"decode", "queue", "compute", "total"}

    with_scene(tmp_path, test)
