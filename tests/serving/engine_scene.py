"""Stand-ins for an engine and the fleet, which speak our own protocol and misbehave as a test says."""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import orjson
from serving_toys import make_artifact

from app.inference.client import Engines
from app.inference.pings import SILENCE
from app.inference.protocol import ClassifyAnswer, ImageResult, Timings, frame, read_frame
from app.inference.routes import EngineState, Route, Routes
from models.catalog import Catalog
from store.layout import Layout
from store.settings import Settings

Run = Callable[[Coroutine[None, None, None]], None]
DONE = ClassifyAnswer(
    results=(ImageResult(index=0),), timings_ms=Timings(decode=0, queue=0, compute=0, total=0)
).model_dump()


class Scene:
    """A data directory with toy@1, a stand-in fleet that says what `fleet_says`, and stand-in engines."""

    def __init__(self, folder: Path, layout: Layout, *, silence: float) -> None:
        self.layout = layout
        artifact = make_artifact(folder / "model", job="job_a", network=False)
        Catalog(self.layout.models).publish("toy", artifact, "job_a")
        self.engines = Engines(self.layout, Settings(data=self.layout.root, model="toy"), silence=silence)
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


def with_scene(
    tmp_path: Path,
    test: Callable[[Scene], Awaitable[None]],
    *,
    run: Run = asyncio.run,
    silence: float = SILENCE,
) -> None:
    """`silence`: seconds without an answer after which an engine is called not ready."""

    async def main() -> None:
        with tempfile.TemporaryDirectory(prefix="resnetd-test-") as data:
            async with Scene(tmp_path, Layout(Path(data)).create(), silence=silence) as scene, asyncio.timeout(20):
                await test(scene)

    run(main())
