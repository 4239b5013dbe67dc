"""What is known of the way to engines: each request's outcome, engines that are full, what they tell of themselves."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from test_engine_client import DONE, Scene, with_scene

from app import tracing
from app.inference import client
from app.inference.errors import DeadlineExceeded, EngineOverloaded
from app.inference.figures import Asked, EngineFigures
from app.inference.routes import EngineState

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
BAD = {"code": "corrupt_image", "message": "cut", "hint": "resend"}
MIXED = {**DONE, "results": [{"index": 0}, {"index": 1, "error": BAD}, {"index": 2}]}


@asynccontextmanager
async def told(scene: Scene) -> AsyncIterator[list[Asked]]:
    heard: list[Asked] = []
    scene.engines.watch = heard.append
    yield heard


def test_every_request_is_told_with_its_outcome_its_images_and_its_times(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        answers: list[dict[str, Any]] = [MIXED, {"error": {"code": "overloaded", "message": "full"}}, {}, {}]
        scene.route(await scene.engine("engine", lambda header: answers[header["id"] - 1]))
        async with told(scene) as heard:
            await scene.engines.classify("toy", [b"x"] * 3, timeout=10)
            with pytest.raises(EngineOverloaded):
                await scene.engines.classify("toy", [b"x"], timeout=10)
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
        scene.route(await scene.engine("engine", lambda _: {"error": {"code": "overloaded", "message": "full"}}))
        assert not scene.engines.refusing("toy")
        monkeypatch.setattr(client, "_FULL_SECONDS", 60.0)
        with pytest.raises(EngineOverloaded):
            await scene.engines.classify("toy", [b"x"], timeout=10)
        assert scene.engines.refusing("toy")
        assert scene.engines.refusing("toy@1")
        monkeypatch.setattr(client, "_FULL_SECONDS", 0.0)
        with pytest.raises(EngineOverloaded):
            await scene.engines.classify("toy", [b"x"], timeout=10)
        assert not scene.engines.refusing("toy")

    with_scene(tmp_path, test)


def test_explanations_which_are_slow_do_not_make_classification_look_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(scene: Scene) -> None:
        monkeypatch.setattr(client, "_PATIENCE", 0.0)
        answers = {1: {**DONE, "results": []}, 3: {**DONE, "results": []}}
        scene.route(await scene.engine("engine", lambda header: answers.get(header["id"], {})))
        await scene.engines.explain("toy", [b"x"] * 20, class_index=None, overlay=False, timeout=10)
        long = asyncio.create_task(scene.engines.preprocess("toy", [b"x"] * 20, timeout=10))
        for _ in range(2):
            await scene.arrivals.get()
        assert not scene.engines.refusing("toy")
        await scene.engines.classify("toy", [b"x"], timeout=10)
        with pytest.raises(EngineOverloaded):
            await scene.engines.explain("toy", [b"x"], class_index=None, overlay=False, timeout=10)
        long.cancel()
        await asyncio.gather(long, return_exceptions=True)

    with_scene(tmp_path, test)


def test_engines_are_asked_for_their_figures_and_one_that_does_not_answer_has_none(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        pong = {"images": 7, "idle_seconds": 0.0, "batches": {"1": 3, "32": 2}}
        scene.route(await scene.engine("engine", lambda _: pong))
        busy = EngineFigures("toy", 1, ready=True, restarts=0, waiting=7, batches={1: 3, 32: 2})
        assert await scene.engines.figures() == [busy]
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
