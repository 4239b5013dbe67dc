"""The client against engines and fleets that misbehave as the test says."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import uvloop
from engine_scene import DONE, Run, Scene, with_scene

from app.inference import connections
from app.inference.connection import Connection, ConnectionLost
from app.inference.errors import DeadlineExceeded, EngineFailed, EngineOverloaded, EngineStarting, EngineUnavailable
from app.inference.routes import Choice, EngineState, RoutesFile
from models.catalog import ModelNotFound


def test_a_request_whose_engine_died_is_asked_again_of_the_next_engine_and_not_of_the_dying_one(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        new = await scene.engine("new", lambda _: DONE)

        def die(_: dict[str, Any]) -> None:
            asyncio.get_running_loop().call_later(0.2, scene.route, new)

        scene.route(await scene.engine("dying", die))
        answer = await scene.engines.classify("toy", [b"x"], timeout=10)
        assert answer.version == 1
        assert len(scene.headers) == 2  # the dying one goes on accepting and was not asked twice

    with_scene(tmp_path, test)


def test_a_request_that_kills_two_engines_is_not_sent_to_a_third(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        second = await scene.engine("second", lambda _: None)

        def die(_: dict[str, Any]) -> None:
            scene.route(second)

        scene.route(await scene.engine("first", die))
        with pytest.raises(EngineUnavailable, match="died twice"):
            await scene.engines.classify("toy", [b"x"], timeout=10)
        assert len(scene.headers) == 2

    with_scene(tmp_path, test)


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_connection_whose_transport_closes_is_lost_at_once_and_not_when_its_reader_hears_of_it(
    tmp_path: Path, run: Run
) -> None:
    async def test(scene: Scene) -> None:
        socket = await scene.engine("engine", lambda _: DONE)
        for turns in range(4):  # after the first one uvloop has closed the transport, and says so by a RuntimeError
            connection = await Connection.open(socket)
            connection._writer.transport.abort()
            for _ in range(turns):
                await asyncio.sleep(0)
            assert connection.closed
            with pytest.raises(ConnectionLost, match="has closed") as lost:
                await connection.request("ping", {"timeout": 1})
            assert lost.value.socket == socket
            await connection.close()
        assert scene.headers == []

    with_scene(tmp_path, test, run=run)


def test_what_the_event_loop_says_of_a_closed_transport_is_that_the_engine_was_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(_: object) -> None:
        raise RuntimeError("unable to perform operation on <UnixTransport closed=True>; the handler is closed")

    async def test(scene: Scene) -> None:
        connection = await Connection.open(await scene.engine("engine", lambda _: DONE))
        monkeypatch.setattr(connection._writer, "writelines", closed)
        with pytest.raises(ConnectionLost, match="handler is closed"):
            await connection.request("ping", {"timeout": 1})
        await connection.close()

    with_scene(tmp_path, test)


def test_a_version_whose_engine_is_ready_is_found_without_a_look_at_the_disk(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        scene.route(await scene.engine("ready", lambda _: DONE))
        for absent in ("toy@2", "toy@01", "toy@", "other@1"):
            with pytest.raises(ModelNotFound):
                scene.engines._choose(absent, 0.5)
        scene.layout.models.rename(scene.layout.root / "away")
        assert scene.engines._choose("toy@1", 0.5) == Choice(model="toy", version=1)
        scene.route("", EngineState.STARTING)
        with pytest.raises(ModelNotFound):
            scene.engines._choose("toy@1", 0.5)

    with_scene(tmp_path, test)


@pytest.mark.parametrize(
    ("code", "error"),
    [("overloaded", EngineOverloaded), ("deadline", DeadlineExceeded), ("internal", EngineFailed)],
)
def test_an_engines_refusal_becomes_the_callers_error(tmp_path: Path, code: str, error: type[Exception]) -> None:
    async def test(scene: Scene) -> None:
        scene.route(await scene.engine("engine", lambda _: {"error": {"code": code, "message": "no"}}))
        with pytest.raises(error, match="no"):
            await scene.engines.classify(None, [b"x"], timeout=10)
        health = await scene.engines.health()
        assert not health.ready

    with_scene(tmp_path, test)


def test_a_caller_that_leaves_or_whose_time_is_over_tells_the_engine_to_skip_the_work(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        scene.route(await scene.engine("silent", lambda _: {}))
        with pytest.raises(DeadlineExceeded, match=r"within 0\.1 s"):
            await scene.engines.classify("toy", [b"x"], timeout=0.1)
        assert [await scene.arrivals.get() for _ in range(2)] == [(1, "classify"), (1, "cancel")]
        asking = asyncio.create_task(scene.engines.classify("toy", [b"x", b"yz"], timeout=10))
        assert await scene.arrivals.get() == (2, "classify")
        asking.cancel()
        assert await scene.arrivals.get() == (2, "cancel")
        assert scene.headers[2]["sizes"] == [1, 2]

    with_scene(tmp_path, test)


def test_requests_that_share_a_connection_get_their_own_answers(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        def echo(header: dict[str, Any]) -> dict[str, Any]:
            return {**DONE, "results": [{"index": 0, "top_k": [{**label, "class_index": header["top_k"]}]}]}

        label = {"label": "x", "probability": 1.0}
        scene.route(await scene.engine("engine", echo))
        answers = await asyncio.gather(
            *(scene.engines.classify("toy", [b"x"], top_k=k, timeout=9) for k in range(1, 9))
        )
        assert [each.results[0].top_k[0].class_index for each in answers] == list(range(1, 9))

    with_scene(tmp_path, test)


def test_a_fleet_that_dies_while_a_load_is_waited_for_has_its_whole_grace_to_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_FLEET_GRACE", 0.3)

    async def test(scene: Scene) -> None:
        engine, asked = await scene.engine("engine", lambda _: DONE), 0

        async def fleet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal asked
            asked += 1
            await reader.readline()
            if asked == 1:
                await asyncio.sleep(0.5)  # it is killed without a word
            else:
                scene.route(engine)
                writer.write(b'{"state": "ready"}\n')
            writer.close()

        socket = scene.layout.run / "other.sock"
        known = connections.Connections(RoutesFile(scene.layout.routes), socket)
        async with await asyncio.start_unix_server(fleet, socket):
            connection = await known.ready("toy", 1, asyncio.get_running_loop().time() + 10, lost=None)
            assert (connection.socket, asked) == (engine, 2)
            await known.close()

    with_scene(tmp_path, test)


def test_a_version_that_cannot_be_served_is_told_with_its_reason_and_one_that_loads_as_starting(tmp_path: Path) -> None:
    async def test(scene: Scene) -> None:
        scene.route("nowhere", EngineState.STARTING)
        with pytest.raises(EngineStarting):
            await scene.engines.classify("toy@1", [b"x"], timeout=0.2)
        assert (await scene.engines.health()).reason == "the engine is starting"
        scene.fleet_says = {"state": "failed", "socket": "", "reason": "out of memory"}
        with pytest.raises(EngineUnavailable, match="toy@1 cannot be served: out of memory"):
            await scene.engines.classify("toy@1", [b"x"], timeout=5)

    with_scene(tmp_path, test)
