"""A fleet on a disk that refuses, and engines that never come to serve."""

import asyncio
import errno
import logging
import os
import signal
from pathlib import Path

import pytest
from serving_toys import FleetProcess, alive
from waiting import wait_for

from app.fleet.engine import Engine, Patience
from app.fleet.fleet import Fleet
from app.fleet.proven import Proven
from app.fleet.server import listen
from app.inference.fleet import ask
from app.inference.routes import EngineState, RoutesFile
from store.files import write_atomic
from store.layout import Layout
from store.settings import Settings


def a_fleet(layout: Layout) -> Fleet:
    return Fleet(layout, Settings(data=layout.root, model="toy", device="cpu"))


def test_a_full_disk_ends_no_engine_and_the_routes_are_written_when_there_is_room(
    layout: Layout, artifacts: list[Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    full, refused = False, 0

    def write(path: Path, data: bytes) -> None:
        nonlocal refused
        if full:
            refused += 1
            raise OSError(errno.ENOSPC, "No space left on device")
        write_atomic(path, data)

    async def main() -> None:
        nonlocal full
        FleetProcess.publish_default(layout, artifacts[0])
        fleet, table = a_fleet(layout), RoutesFile(layout.routes)
        fleet._catalog.publish("toy", artifacts[1], "job_1")
        running = asyncio.create_task(fleet.run())
        try:
            async with asyncio.timeout(120):
                first = await fleet.ensure("toy", 1)
                full = True
                assert (await fleet.ensure("toy", 2)).state is EngineState.READY
                seen = refused
                await asyncio.to_thread(wait_for, lambda: refused > seen + 2)  # tried again, though nothing changed
                assert table.read().engine("toy", 2) is None
                assert first.pid is not None
                assert alive(first.pid)
                assert not running.done()
                full = False
                await asyncio.to_thread(wait_for, lambda: table.read().engine("toy", 2))
                assert not running.done()
        finally:
            running.cancel()
            await fleet.stop()

    caplog.set_level(logging.INFO, logger="app.fleet.fleet")
    monkeypatch.setattr("app.inference.routes.write_atomic", write)
    monkeypatch.setattr("app.fleet.proven.write_atomic", write)
    asyncio.run(main())
    said = [(each.levelname, each.getMessage()) for each in caplog.records if "disk" in each.getMessage()]
    assert said == [
        ("ERROR", "the disk refuses; engines serve on, and it is tried again"),
        ("INFO", "the disk refuses nothing any more"),
    ]


def test_whoever_asks_for_an_engine_that_cannot_be_looked_for_is_told(
    layout: Layout, artifacts: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def scarce(*_: object) -> Path:
        raise OSError(errno.EMFILE, "Too many open files")

    async def main() -> None:
        FleetProcess.publish_default(layout, artifacts[0])
        fleet = a_fleet(layout)
        server = await listen(fleet, layout.fleet_socket)
        monkeypatch.setattr("models.catalog.Catalog.folder", scarce)
        try:
            answer = await ask(layout.fleet_socket, {"op": "ensure", "model": "toy", "version": 1})
        finally:
            server.close()
            await fleet.stop()
        assert (answer["state"], answer["reason"]) == ("failed", "its files cannot be read: Too many open files")

    asyncio.run(main())


def test_what_served_last_is_not_forgotten_while_the_aliases_cannot_be_read(
    layout: Layout, artifacts: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    FleetProcess.publish_default(layout, artifacts[0])
    known = Proven(layout.served)
    known.note("toy", {"production": 1})
    known.write()
    (layout.models / "toy" / "aliases.json").write_text("not whole")
    fleet = a_fleet(layout)
    for _ in range(3):
        fleet._reconcile()
    assert Proven(layout.served).of("toy") == {"production": 1}
    assert [each.getMessage() for each in caplog.records] == ["the aliases of a model cannot be read"]


def test_a_record_of_what_served_that_says_nothing_of_what_was_loaded_is_read(layout: Layout) -> None:
    layout.served.write_text('{"aliases": {"toy": {"production": 1}}}')
    known = Proven(layout.served)
    assert (known.of("toy"), known.loaded) == ({"production": 1}, set())
    known.loaded.add(("other", 3))
    known.write()
    again = Proven(layout.served)
    assert (again.of("toy"), again.loaded) == ({"production": 1}, {("other", 3)})


class Watched:
    """An engine, and a way to wait for what becomes of it."""

    def __init__(self, folder: Path, run: Path, *, device: str = "cpu", stable: float = 30.0) -> None:
        self.states: list[EngineState] = []
        self._changed = asyncio.Event()
        self.engine = Engine(
            model="toy",
            version=1,
            folder=folder,
            run=run,
            device=device,
            on_change=self._on_change,
            patience=Patience(stable=stable),
        )

    def _on_change(self) -> None:
        self.states.append(self.engine.state)
        self._changed.set()

    async def until(self, state: EngineState) -> None:
        while self.engine.state is not state:
            self._changed.clear()
            await self._changed.wait()


def test_an_engine_that_cannot_be_watched_for_an_unforeseen_reason_is_started_anew(
    tmp_path: Path, artifacts: list[Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        watched = Watched(artifacts[0], tmp_path)
        ping, pings = watched.engine._ping, 0

        async def fails_once() -> str | None:
            nonlocal pings
            pings += 1
            await asyncio.sleep(0.1)
            return {}["idle_seconds"] if pings == 1 else await ping()

        monkeypatch.setattr(watched.engine, "_ping", fails_once)
        try:
            async with asyncio.timeout(120):
                await watched.until(EngineState.READY)
                first = watched.engine.route
                await watched.until(EngineState.STARTING)
                assert watched.engine.route.reason == "it could not be started or watched: 'idle_seconds'"
                await watched.until(EngineState.READY)
            assert watched.engine.route.restarts == 1
            assert watched.engine.route.pid != first.pid
            assert first.pid is not None
            await asyncio.to_thread(wait_for, lambda: not alive(first.pid))
        finally:
            await watched.engine.stop(seconds=10)

    asyncio.run(main())
    (logged,) = [each for each in caplog.records if each.exc_info]
    assert logged.getMessage() == "an engine could not be started or watched"


def test_three_starts_that_fail_make_an_engine_failed(tmp_path: Path, artifacts: list[Path]) -> None:
    async def main() -> None:
        watched = Watched(artifacts[0], tmp_path, device="cuda:77")
        try:
            async with asyncio.timeout(120):
                await watched.until(EngineState.FAILED)
            assert set(watched.states[:-1]) == {EngineState.STARTING}
            assert watched.engine.route.restarts == 3
            assert "cuda:77" in (watched.engine.route.reason or "")
        finally:
            await watched.engine.stop(seconds=10)

    asyncio.run(main())


def test_an_engine_that_loads_for_long_and_dies_as_soon_as_it_is_ready_is_failed_after_three_times(
    tmp_path: Path, artifacts: list[Path]
) -> None:
    """Each start takes longer than an engine has to be ready in order to be called stable."""
    stable = 0.5

    async def main() -> None:
        loop = asyncio.get_running_loop()
        watched = Watched(artifacts[0], tmp_path, stable=stable)
        try:
            async with asyncio.timeout(120):
                for life in (1, 2, 3):
                    began = loop.time()
                    await watched.until(EngineState.READY)
                    assert loop.time() - began > stable
                    os.kill(watched.engine.route.pid or 0, signal.SIGKILL)
                    await watched.until(EngineState.FAILED if life == 3 else EngineState.STARTING)
            assert watched.engine.route.reason == "it was ended by SIGKILL"
        finally:
            await watched.engine.stop(seconds=10)

    asyncio.run(main())
