"""Requests that the first engine could not answer: what a canary cannot do, the version that is served does."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from engine_scene import DONE, Scene, with_scene

from app.inference import asking, queues
from app.inference.errors import EngineOverloaded, EngineUnavailable, RequestRefused
from app.inference.figures import Asked
from app.inference.protocol import Output, TensorInput
from app.inference.queues import Kind
from app.inference.routes import EngineState, Route, Routes, Split

Say = Callable[[dict[str, Any]], dict[str, Any] | None]
FULL = {"error": {"code": "overloaded", "message": "full"}}
REFUSED = {"error": {"code": "refused", "message": "class_index 7 is none of this model's"}}
FAILED = {"error": {"code": "internal", "message": "the output is not a finite number"}}
LATE = {"error": {"code": "deadline", "message": "no answer within 15 s"}}
BAD = {"message": "", "hint": ""}
NOT_FINITE = {**DONE, "results": [{"index": 0}, {"index": 1, "error": {**BAD, "code": "internal"}}]}
CORRUPT = {**DONE, "results": [{"index": 0, "error": {**BAD, "code": "corrupt_image"}}]}


def share(
    scene: Scene, served: str, canary: str, *, percent: float = 100, state: EngineState = EngineState.READY
) -> None:
    """Version 1 is served, version 2 its canary, in the state of the table."""
    both = (
        Route(model="toy", version=1, state=EngineState.READY, socket=served, device="cpu"),
        Route(model="toy", version=2, state=state, socket=canary, device="cpu"),
    )
    splits = {"toy": {"production": Split(canary=2, percent=percent)}}
    Routes(engines=both, aliases={"toy": {"production": 1}}, splits=splits).write(scene.layout.routes)


async def classified(scene: Scene, *, timeout: float = 10) -> int:  # noqa: ASYNC109 - that of the request
    """The version that answered."""
    return (await scene.engines.classify("toy", [b"x"], timeout=timeout)).version


@pytest.mark.parametrize(
    ("says", "outcome"),
    [
        (FULL, "overloaded"),
        (None, "lost"),
        (REFUSED, "refused"),
        (FAILED, "internal"),
        (LATE, "deadline"),
        (NOT_FINITE, "answered"),
    ],
)
def test_a_canary_that_is_full_dies_or_answers_anything_but_results_costs_no_client_an_answer(
    tmp_path: Path, says: dict[str, Any] | None, outcome: str
) -> None:
    async def test(scene: Scene) -> None:
        heard: list[Asked] = []
        scene.engines.asking.watch = heard.append
        canary = await scene.engine("canary", lambda _: says)
        share(scene, await scene.engine("served", lambda _: DONE), canary)
        assert await classified(scene) == 1
        await asyncio.sleep(0)  # it is told just after its answer
        assert [(each.version, each.outcome) for each in heard] == [(2, outcome), (1, "answered")]

    with_scene(tmp_path, test)


def test_a_canary_that_hangs_leaves_the_version_that_is_served_half_of_the_requests_time(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        share(scene, await scene.engine("served", lambda _: DONE), await scene.engine("hung", lambda _: {}))
        assert await classified(scene, timeout=1) == 1
        hung, cancelled, served = scene.headers
        assert (hung["op"], cancelled["op"], served["op"]) == ("classify", "cancel", "classify")
        assert 0.4 < hung["timeout"] <= 0.5
        assert served["timeout"] <= 0.5

    with_scene(tmp_path, test)


def test_an_image_that_a_canary_refuses_for_its_own_sake_is_asked_about_once(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        share(scene, await scene.engine("served", lambda _: DONE), await scene.engine("canary", lambda _: CORRUPT))
        assert await classified(scene) == 2
        assert len(scene.headers) == 1

    with_scene(tmp_path, test)


@pytest.mark.parametrize("kind", TensorInput)
def test_a_tensor_which_was_prepared_for_the_version_that_is_served_goes_to_no_canary(
    tmp_path: Path, kind: TensorInput
) -> None:
    async def test(scene: Scene) -> None:
        inferred = {**DONE, "tensors": [{"name": "logits", "shape": [0, 0]}]}
        share(scene, await scene.engine("served", lambda _: inferred), await scene.engine("canary", lambda _: inferred))
        answer = await scene.engines.infer("toy", b"x", kind=kind, shape=[1], outputs=[Output.LOGITS], timeout=10)
        assert (answer.version, len(scene.headers)) == (1, 1)

    with_scene(tmp_path, test)


def test_a_class_that_is_named_by_its_number_is_that_of_the_version_that_is_served(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        shown = {**DONE, "results": []}
        share(scene, await scene.engine("served", lambda _: shown), await scene.engine("canary", lambda _: shown))

        async def explained(class_index: int | None) -> int:
            asked = scene.engines.explain("toy", [b"x"], class_index=class_index, overlay=False, timeout=10)
            return (await asked).version

        assert [await explained(0), await explained(None)] == [1, 2]

    with_scene(tmp_path, test)


@pytest.mark.parametrize("state", [EngineState.READY, EngineState.STARTING])
def test_a_canary_that_is_not_there_is_not_waited_for(tmp_path: Path, state: EngineState) -> None:
    async def test(scene: Scene) -> None:
        share(scene, await scene.engine("served", lambda _: DONE), "nowhere", state=state)
        assert await classified(scene) == 1

    with_scene(tmp_path, test)


def test_a_canary_that_would_answer_too_late_leaves_the_request_to_the_version_that_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(scene: Scene) -> None:
        monkeypatch.setattr(asking, "_PATIENCE", 0.0)
        canary = await scene.engine("canary", lambda header: DONE if header["id"] == 1 else {})
        share(scene, await scene.engine("served", lambda _: DONE), canary)
        assert (await scene.engines.classify("toy", [b"x"] * 20, timeout=10)).version == 2  # its pace is known
        long = asyncio.create_task(scene.engines.classify("toy", [b"x"], timeout=10))
        for _ in range(2):
            await scene.arrivals.get()
        assert await classified(scene) == 1
        long.cancel()
        await asyncio.gather(long, return_exceptions=True)

    with_scene(tmp_path, test)


def test_what_the_version_that_is_served_refuses_is_refused(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        canary = await scene.engine("canary", lambda _: DONE)
        served = await scene.engine("served", lambda _: FULL)
        share(scene, served, canary, percent=0)
        with pytest.raises(EngineOverloaded):
            await classified(scene)
        share(scene, served, await scene.engine("full", lambda _: FULL))
        with pytest.raises(EngineOverloaded):
            await classified(scene)

    with_scene(tmp_path, test)


def test_a_request_that_both_refuse_is_refused_in_the_words_of_the_version_that_is_served(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        share(scene, await scene.engine("served", lambda _: REFUSED), await scene.engine("broken", lambda _: FAILED))
        with pytest.raises(RequestRefused, match="class_index 7"):
            await classified(scene)

    with_scene(tmp_path, test)


def test_a_request_that_kills_a_canary_and_the_engine_that_serves_is_given_up(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        share(scene, await scene.engine("served", lambda _: None), await scene.engine("canary", lambda _: None))
        with pytest.raises(EngineUnavailable, match="toy@1 died twice"):
            await classified(scene)
        assert len(scene.headers) == 2

    with_scene(tmp_path, test)


def test_who_comes_is_refused_unread_only_where_every_version_is_full_that_could_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(scene: Scene) -> None:
        monkeypatch.setattr(queues, "_FULL_SECONDS", 60.0)
        share(scene, "served", "canary", percent=10)
        known = scene.engines.asking._queues
        known.full("toy", 1, Kind.SERVED, images=1, size=100, patience=15)
        assert scene.engines.refusing("toy@1", "classify", size=100)
        assert not scene.engines.refusing("toy", "classify", size=100)
        known.full("toy", 2, Kind.SERVED, images=1, size=100, patience=7.5)  # a canary has half of the time
        assert scene.engines.refusing("toy", "classify", size=100)
        assert not scene.engines.refusing("toy", "infer", size=100)  # normalised tensors have places of their own
        known.full("toy", 1, Kind.NORMALISED, images=1, size=100, patience=15)
        assert scene.engines.refusing("toy", "infer", size=100)  # and go to no canary
        assert not scene.engines.refusing("toy", "classify", size=99)
        assert not scene.engines.refusing("toy", "explain", size=100)

    with_scene(tmp_path, test)
