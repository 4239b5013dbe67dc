"""The client against engines and fleets that misbehave as the test says: stand-ins that speak our own protocol."""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from serving_toys import make_artifact

from app.inference.client import Engines
from app.inference.errors import DeadlineExceeded, EngineFailed, EngineOverloaded, EngineStarting, EngineUnavailable
from app.inference.protocol import Answer, ImageResult, Timings, frame, read_frame
from app.inference.routes import Choice, EngineState, Route, Routes
from models.catalog import Catalog, ModelNotFound
from store.layout import Layout
from store.settings import Settings

DONE = Answer(results=(ImageResult(index=0),), timings_ms=Timings(decode=0, queue=0, compute=0, total=0)).model_dump()


class Scene:
    """A data directory with toy@1, a stand-in fleet that says what `fleet_says`, and stand-in engines."""

    def __init__(self, folder: Path, layout: Layout) -> None:
        self.layout = layout
        artifact = make_artifact(folder / "model", job="job_a", network=False)
        Catalog(self.layout.models).publish("toy", artifact, "job_a")
        self.engines = Engines(self.layout, Settings(data=self.layout.root, model="toy"))
        self.fleet_says: dict[str, Any] = {"state": "ready", "socket": "", "reason": None}
        self.headers: list[dict[str, Any]] = []
        self.arrivals: asyncio.Queue[tuple[int, str]] = asyncio.Queue()
        self._servers: list[asyncio.Server] = []
        self._writers: list[asyncio.StreamWriter] = []

    async def engine(self, name: str, answer: Callable[[dict[str, Any]], dict[str, Any] | None]) -> str:
        """An engine that answers each request by `answer`, and hangs up where that is None."""

        async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._writers.append(writer)
            try:
                while True:
                    header = orjson.loads((await read_frame(reader))[0])
                    self.headers.append(header)
                    self.arrivals.put_nowait((header["id"], header["op"]))
                    fields = answer(header)
                    if fields is None:
                        return
                    if fields:
                        writer.write(frame({"id": header["id"], **fields}))
            except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
                pass
            finally:
                writer.close()

        socket = self.layout.run / name
        self._servers.append(await asyncio.start_unix_server(connection, socket))
        return str(socket)

    def say(self, number: int, fields: dict[str, Any]) -> None:
        """A late answer, over the newest connection."""
        self._writers[-1].write(frame({"id": number, **fields}))

    def route(self, socket: str, state: EngineState = EngineState.READY) -> None:
        engine = Route(model="toy", version=1, state=state, socket=socket, device="cpu")
        Routes(engines=(engine,), aliases={"toy": {"production": 1}}).write(self.layout.routes)

    async def __aenter__(self) -> "Scene":
        async def fleet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readline()
            writer.write(orjson.dumps(self.fleet_says) + b"\n")
            writer.close()

        self._servers.append(await asyncio.start_unix_server(fleet, self.layout.fleet_socket))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.engines.close()
        for server in self._servers:
            server.close()


def with_scene(tmp_path: Path, test: Callable[[Scene], Awaitable[None]]) -> None:
    async def main() -> None:
        with tempfile.TemporaryDirectory(prefix="resnetd-test-") as data:
            async with Scene(tmp_path, Layout(Path(data)).create()) as scene, asyncio.timeout(20):
                await test(scene)

    asyncio.run(main())


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
