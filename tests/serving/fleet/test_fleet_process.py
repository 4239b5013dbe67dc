"""The fleet and its engines as processes, seen through the client that the HTTP processes use."""

import asyncio
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from serving_toys import CLASSES, FleetProcess, alive, make_artifact, picture, with_client
from waiting import wait_for

from app.fleet.engine import Engine, Patience
from app.inference.client import Engines
from app.inference.errors import EngineStarting, EngineUnavailable
from app.inference.routes import EngineState
from models.catalog import ModelNotFound
from store.layout import Layout
from store.settings import Settings

StartFleet = Callable[..., FleetProcess]


async def version(engines: Engines, ref: str | None = None) -> int:
    answer = await engines.classify(ref, [picture()], top_k=2, timeout=60)
    assert answer.results[0].error is None
    return answer.version


def test_the_default_model_is_served_others_load_when_asked_for_and_all_ends_on_sigterm(
    fleet: StartFleet, artifacts: list[Path]
) -> None:
    running = fleet()

    async def test(engines: Engines) -> None:
        assert not (await engines.health()).ready  # the engine has hardly begun
        answer = await engines.classify(None, [picture(1), b"no image", picture(2)], top_k=9, timeout=60)
        assert (answer.model, answer.version) == ("toy", 1)
        assert [len(each.top_k) for each in answer.results] == [len(CLASSES), 0, len(CLASSES)]
        assert answer.results[1].error is not None
        await asyncio.sleep(1.0)  # a health answer is good for a second
        assert (await engines.health()).ready
        for ref in ("nothing", "toy@2", "toy@", "../toy"):
            with pytest.raises(ModelNotFound):
                await engines.classify(ref, [picture()], timeout=5)
        running.catalog.publish("other", artifacts[1], "job_1")
        with pytest.raises(EngineStarting):
            await engines.classify("other", [picture()], timeout=0.1)
        assert await version(engines, "other@production") == 1

    with_client(running, test)
    pids = [each.pid for each in running.routes().engines]
    assert len(pids) == 2
    assert running.stop() == 0
    assert not any(alive(pid) for pid in pids if pid)
    assert list(running.layout.run.iterdir()) == []


def test_a_killed_engine_comes_back_without_a_lost_request_and_dies_with_its_only_fleet(fleet: StartFleet) -> None:
    running = fleet()
    before = running.ready("toy", 1).pid

    async def test(engines: Engines) -> None:
        asking = [asyncio.create_task(engines.classify("toy", [picture()] * 64, timeout=60)) for _ in range(4)]
        await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
        asking += [asyncio.create_task(engines.classify("toy", [picture()] * 64, timeout=60)) for _ in range(2)]
        await asyncio.sleep(0)
        assert before is not None
        os.kill(before, signal.SIGKILL)
        asking += [asyncio.create_task(engines.classify("toy", [picture()], timeout=60)) for _ in range(4)]
        for answer in await asyncio.gather(*asking):
            assert all(each.error is None for each in answer.results)

    with_client(running, test)
    after = running.ready("toy", 1)
    assert after.pid not in {before, None}
    second = FleetProcess(running.layout)
    assert second.process.wait(timeout=60) == 1
    assert alive(after.pid or 0)
    running.process.kill()
    running.process.wait()
    wait_for(lambda: not alive(after.pid or 0))


def test_a_routing_table_that_somebody_removed_is_back_and_its_engines_serve_on(fleet: StartFleet) -> None:
    """A data directory with a long path has it in /tmp, where files that nobody writes to are removed after days."""
    running = fleet()
    before = running.ready("toy", 1)
    running.layout.routes.unlink()
    wait_for(running.layout.routes.exists)

    async def test(engines: Engines) -> None:
        assert await version(engines) == 1

    with_client(running, test)
    assert running.ready("toy", 1).pid == before.pid


def test_an_alias_moves_to_a_new_version_without_a_failed_request_and_the_old_engine_ends(
    fleet: StartFleet, artifacts: list[Path]
) -> None:
    running = fleet()
    old = running.ready("toy", 1).pid
    seen: list[int] = []

    async def ask(engines: Engines) -> None:
        while not seen or seen[-1] == 1 or seen.count(2) < 20:
            seen.append(await version(engines))

    async def test(engines: Engines) -> None:
        asking = [asyncio.create_task(ask(engines)) for _ in range(3)]
        while len(seen) < 10:
            seen.append(await version(engines))
        await asyncio.to_thread(running.catalog.publish, "toy", artifacts[1], "job_1")
        running.catalog.set_alias("toy", "production", 2)
        seen_before = len(seen)
        await asyncio.gather(*asking)
        assert seen[seen_before : seen_before + 3] == [1, 1, 1]  # served on while the new one loads
        assert set(seen) == {1, 2}

    with_client(running, test)
    assert old is not None
    wait_for(lambda: not alive(old))
    wait_for(lambda: [each.version for each in running.routes().engines] == [2])
    assert running.routes().aliases == {"toy": {"production": 2}}


def test_a_version_that_fails_its_golden_check_never_replaces_the_one_that_serves(
    fleet: StartFleet, tmp_path: Path
) -> None:
    running = fleet()
    running.ready("toy", 1)
    damaged = make_artifact(tmp_path / "damaged", job="job_d", seed=5)
    weights = bytearray((damaged / "weights.safetensors").read_bytes())
    weights[-1] ^= 1
    (damaged / "weights.safetensors").write_bytes(weights)
    running.catalog.set_alias("toy", "production", running.catalog.publish("toy", damaged, "job_d"))

    def failed() -> bool:
        route = running.routes().engine("toy", 2)
        return route is not None and route.state is EngineState.FAILED

    wait_for(failed)

    async def test(engines: Engines) -> None:
        assert await version(engines) == 1
        with pytest.raises(EngineUnavailable, match=r"toy@2 cannot be served: .*sha256"):
            await version(engines, "toy@2")

    with_client(running, test)


def test_the_longest_unused_model_makes_room_and_its_process_ends(fleet: StartFleet, artifacts: list[Path]) -> None:
    running = fleet(max_engines=2)
    running.catalog.publish("first", artifacts[1], "job_1")
    running.catalog.publish("second", artifacts[2], "job_2")

    async def test(engines: Engines) -> None:
        assert await version(engines, "first") == 1
        first = running.ready("first", 1).pid
        assert first is not None
        assert await version(engines, "second") == 1
        await asyncio.to_thread(wait_for, lambda: not alive(first))
        assert await version(engines) == 1

    with_client(running, test)
    assert {each.model for each in running.routes().engines} == {"toy", "second"}


def test_models_that_are_asked_for_at_once_take_turns_where_there_is_room_for_one(
    fleet: StartFleet, artifacts: list[Path]
) -> None:
    running = fleet(max_engines=2)
    running.catalog.publish("first", artifacts[1], "job_1")
    running.catalog.publish("second", artifacts[2], "job_2")
    running.ready("toy", 1)

    async def test(engines: Engines) -> None:
        assert await asyncio.gather(version(engines, "first"), version(engines, "second")) == [1, 1]

    with_client(running, test)
    sockets = [Path(each.socket) for each in running.routes().engines]
    assert max(int(each.stem.rpartition("-")[2]) for each in sockets) == 3  # starts: of each model one


def test_without_a_fleet_a_client_is_told_soon(
    layout: Layout, artifacts: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.inference.connections._FLEET_GRACE", 0.2)

    async def main() -> None:
        engines = Engines(layout, Settings(data=layout.root, model="toy"))
        assert "no model" in str((await engines.health()).reason)
        FleetProcess.publish_default(layout, artifacts[0])
        with pytest.raises(EngineUnavailable, match="does not answer"):
            await engines.classify(None, [picture()], timeout=30)

    asyncio.run(main())


def test_an_engine_that_no_process_can_be_had_for_is_tried_again(
    tmp_path: Path, artifacts: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        start, refused = asyncio.create_subprocess_exec, 0

        async def scarce(*command: str, **options: object) -> asyncio.subprocess.Process:
            nonlocal refused
            refused += 1
            if refused == 1:
                raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
            return await start(*command, **options)  # type: ignore[arg-type]  # passed on as they came

        monkeypatch.setattr("asyncio.create_subprocess_exec", scarce)
        engine = Engine(model="toy", version=1, folder=artifacts[0], run=tmp_path, device="cpu", on_change=lambda: None)
        try:
            async with asyncio.timeout(60):
                assert (await engine.settle()).state is EngineState.READY
            assert refused == 2
        finally:
            await engine.stop(seconds=10)

    asyncio.run(main())


def test_an_engine_that_hangs_is_killed_and_started_again(tmp_path: Path, artifacts: list[Path]) -> None:
    async def main() -> None:
        changed = asyncio.Event()

        async def until(state: EngineState) -> None:
            while engine.state is not state:
                changed.clear()
                await changed.wait()

        engine = Engine(
            model="toy",
            version=1,
            folder=artifacts[0],
            run=tmp_path,
            device="cpu",
            on_change=changed.set,
            patience=Patience(ping_every=0.1, ping=2.0, pings_missed=2),
        )
        try:
            async with asyncio.timeout(60):
                await until(EngineState.READY)
                stopped = engine.route.pid
                assert stopped is not None
                os.kill(stopped, signal.SIGSTOP)
                await until(EngineState.STARTING)
                assert engine.route.reason == "it hung: no answer to a ping within 2 s"
                assert not alive(stopped)
                await until(EngineState.READY)
                assert engine.route.reason is None
        finally:
            await engine.stop(seconds=10)

    asyncio.run(main())


def test_neither_the_client_nor_the_fleet_imports_torch() -> None:
    code = "import app.inference.client, app.fleet.__main__, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
