"""Whether an engine is alive, as /readyz tells it: in less than two seconds, and nobody who computes is called dead."""

import asyncio
import selectors
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from engine_scene import DONE, Scene, with_scene

from app.inference import pings
from app.inference.errors import EngineOverloaded
from app.inference.pings import Signs

PONG = {"images": 0, "idle_seconds": 0.0, "batches": {}}
COMPUTED = {**DONE, "timings_ms": {"decode": 1.0, "queue": 1.0, "compute": 5.0, "total": 7.0}}
FULL = {"error": {"code": "overloaded", "message": "full"}}


def but_no_pong(answer: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """An engine that answers pings with silence."""
    return lambda header: {} if header["op"] == "ping" else answer


def pinged(scene: Scene) -> int:
    return sum(header["op"] == "ping" for header in scene.headers)


class Leaping(selectors.DefaultSelector):
    """Where nothing happens it waits for nothing: its clock leaps to the end of the waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.now = time.monotonic()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        happened = super().select(None if timeout is None else 0)
        if not happened and timeout is not None:
            self.now += timeout
        return happened


def test_a_hang_is_told_within_two_seconds_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leaping = Leaping()
    monkeypatch.setattr(time, "monotonic", lambda: leaping.now)

    def run(main: Coroutine[None, None, None]) -> None:
        with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(leaping)) as runner:
            runner.run(main)

    async def test(scene: Scene) -> None:
        hangs = False
        scene.route(await scene.engine("engine", lambda _: {} if hangs else PONG))
        assert (await scene.engines.health()).ready
        hangs, since = True, time.monotonic()
        while (await scene.engines.health()).ready:  # noqa: ASYNC110 - as whoever looks at /readyz
            await asyncio.sleep(0.01)
        assert time.monotonic() - since < 2.0

    with_scene(tmp_path, test, run=run)


def test_all_who_ask_share_one_ping_and_learn_of_a_hang_together(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        scene.route(await scene.engine("hung", but_no_pong({})))
        clock = asyncio.get_running_loop().time
        began = clock()
        told = await asyncio.gather(*(scene.engines.health() for _ in range(10)))
        assert clock() - began < 5 * 0.3  # one after the other it would be ten times as long
        assert {each.ready for each in told} == {False}
        assert "has not answered for 0." in str(told[0].reason)
        assert not (await scene.engines.health()).ready  # the ping is still on its way
        assert pinged(scene) == 1

    with_scene(tmp_path, test, silence=0.3)


def test_an_answer_is_good_from_when_it_came_and_not_from_when_it_was_asked_for(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        scene.route(await scene.engine("slow", lambda header: {} if len(scene.headers) == 1 else PONG))
        asking = asyncio.create_task(scene.engines.health())
        number, _ = await scene.arrivals.get()
        asyncio.get_running_loop().call_later(2 * pings._HEALTH_AGE, scene.say, number, PONG)
        assert (await asking).ready
        assert (await scene.engines.health()).ready
        assert pinged(scene) == 1

    with_scene(tmp_path, test, silence=10.0)


def test_an_engine_that_computes_for_others_is_alive_however_long_a_ping_waits_and_one_that_refuses_is_not(
    tmp_path: Path,
) -> None:
    async def while_going(work: Callable[[], Awaitable[object]], scene: Scene) -> bool:
        stop = asyncio.Event()

        async def go() -> None:
            while not stop.is_set():
                await work()

        going = asyncio.create_task(go())
        ready = (await scene.engines.health()).ready
        stop.set()
        await going
        return ready

    async def test(scene: Scene) -> None:
        answer = COMPUTED
        scene.route(await scene.engine("busy", lambda header: {} if header["op"] == "ping" else answer))

        async def classify() -> None:
            await scene.engines.classify("toy", [b"x"], timeout=10)

        async def be_held_up() -> None:
            await classify()
            time.sleep(0.4)  # this process, as where the machine has no time for it  # noqa: ASYNC251

        async def be_refused() -> None:
            with pytest.raises(EngineOverloaded):
                await scene.engines.classify("toy", [b"x"], timeout=10)
            await asyncio.sleep(0)  # what is foreseen to be refused waits for nothing

        assert await while_going(classify, scene)
        assert await while_going(be_held_up, scene)
        answer = FULL  # whoever hangs may go on saying so
        assert not await while_going(be_refused, scene)
        assert pinged(scene) == 1

    with_scene(tmp_path, test, silence=0.3)


def test_an_engine_with_a_long_batch_in_hand_is_waited_for_and_nobody_waits_for_that_answer(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        seconds = {**COMPUTED, "timings_ms": {**COMPUTED["timings_ms"], "compute": 5000.0}}
        scene.route(await scene.engine("busy", but_no_pong(seconds)))
        await scene.engines.classify("toy", [b"x"], timeout=10)
        clock = asyncio.get_running_loop().time
        began = clock()
        assert (await scene.engines.health()).ready
        assert clock() - began < 5.0

    with_scene(tmp_path, test, silence=0.2)


def test_a_ping_that_is_given_up_is_no_hang_of_an_engine_that_has_just_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(scene: Scene) -> None:
        monkeypatch.setattr(pings, "_PING_TIMEOUT", 0.05)
        scene.route(await scene.engine("busy", but_no_pong(COMPUTED)))
        await scene.engines.classify("toy", [b"x"], timeout=10)
        assert (await scene.engines.health()).ready
        scene.route(await scene.engine("hung", but_no_pong({})))
        hung = await scene.engines.health()
        assert (hung.ready, hung.reason) == (False, "the engine has not answered for 0.05 s")

    with_scene(tmp_path, test)


def test_an_engine_is_waited_for_as_long_as_its_batches_take_and_less_when_they_are_short_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr("app.inference.pings.time.monotonic", lambda: now)
    signs = Signs(silence=1.4)
    assert (signs.patience, now - signs.heard) == (1.4, float("inf"))
    signs.answered(3.0)
    assert (signs.patience, signs.heard) == (6.0, 100.0)
    signs.answered(0.1)
    assert 1.4 < signs.patience < 6.0
    for _ in range(20):
        signs.answered(0.1)
    assert signs.patience == 1.4
    signs.answered(1e6)
    assert signs.patience == 2 * pings._PING_TIMEOUT


def test_a_new_engine_and_one_that_is_gone_are_told_at_once_whatever_was_known(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        scene.route(await scene.engine("first", lambda _: PONG))
        assert (await scene.engines.health()).ready
        scene.route("nowhere")
        gone = await scene.engines.health()
        assert (gone.ready, str(gone.reason).startswith("the engine does not answer")) == (False, True)
        scene.route(await scene.engine("second", lambda _: PONG))
        assert (await scene.engines.health()).ready

    with_scene(tmp_path, test)


def test_a_ping_that_was_asked_for_ends_with_the_process(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        scene.route(await scene.engine("hung", but_no_pong({})))
        asking = asyncio.create_task(scene.engines.health())
        await scene.arrivals.get()
        await scene.engines.close()
        await asyncio.gather(asking, return_exceptions=True)
        assert "health" not in {task.get_name() for task in asyncio.all_tasks()}

    with_scene(tmp_path, test)
