"""A relay on loopback that does what networks do: it cuts, falls silent, is slow, and loses answers to deeds done."""

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Literal, TypeVar

Mode = Literal["pass", "silent"]
T = TypeVar("T")
_CHUNK = 65536
_ABORT = struct.pack("ii", 1, 0)  # SO_LINGER 0: closing sends RST


class _Link:
    """One client's connection and ours to the server behind it."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter | None) -> None:
        self.client, self.server = client, server
        self.silent = False
        self.swallow = False  # the server's next answer is lost, and then the client

    def cut(self) -> None:
        for writer in (self.client, self.server):
            if writer is not None:
                sock = writer.get_extra_info("socket")
                with contextlib.suppress(OSError):
                    if sock.family != socket.AF_UNIX:
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
                writer.transport.abort()


class Proxy:
    """Listens on `port` once started, in a thread of its own. `target`: a unix socket's path or a (host, port)."""

    def __init__(self, target: Path | tuple[str, int], *, seed: int = 0) -> None:
        self._target = target
        self._random = random.Random(seed)
        self._mode: Mode = "pass"
        self._links: set[_Link] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._server: asyncio.Server | None = None
        #: Seconds that each piece waits before it goes on.
        self.latency = 0.0
        #: Connections live this long, a random time between the two; None = for ever.
        self.lifetime: tuple[float, float] | None = None
        #: Chance that the answer to a client's piece is lost after the server has sent it.
        self.lose_replies = 0.0
        self.port = 0
        self.connections = self.cuts = self.lost_replies = 0

    # From the test's thread ...

    def start(self) -> "Proxy":
        self._thread.start()
        self._call(self._listen())
        return self

    def stop(self) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def point_at(self, target: Path | tuple[str, int]) -> None:
        """Where connections lead from now on."""
        self._target = target

    def cut(self) -> None:
        """Reset every connection; new ones pass."""
        self._call(self._on_all(_Link.cut))

    def silence(self) -> None:
        """From now on nothing is forwarded, and nobody is told: what is open stays open, what comes is accepted."""

        def fall_silent(link: _Link) -> None:
            link.silent = True

        self._mode = "silent"
        self._call(self._on_all(fall_silent))

    def restore(self) -> None:
        """New connections pass. Those that fell silent stay silent for ever, as a half-open connection does."""
        self._mode = "pass"

    def _call(self, task: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(task, self._loop).result(timeout=30)

    # In the proxy's own thread ...

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1024)
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        await self._on_all(_Link.cut)
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _on_all(self, what: Callable[[_Link], None]) -> None:
        for link in list(self._links):
            what(link)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self._target, Path):
            return await asyncio.open_unix_connection(self._target)
        return await asyncio.open_connection(*self._target)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        link = _Link(writer, None)
        self._links.add(link)
        try:
            if self._mode == "silent":
                link.silent = True
                await self._pump(reader, link, lambda _: None)
                return
            server_reader, link.server = await self._connect()
            server = link.server
            if self.lifetime is not None:
                asyncio.get_running_loop().call_later(self._random.uniform(*self.lifetime), self._end, link)
            there = asyncio.create_task(self._pump(reader, link, lambda piece: self._ask(link, server, piece)))
            back = asyncio.create_task(self._pump(server_reader, link, lambda piece: self._answer(link, piece)))
            await asyncio.wait([there, back], return_when=asyncio.FIRST_COMPLETED)
            if link.silent:  # the one end does not learn that the other is gone
                await asyncio.gather(there, back)
            there.cancel()
            back.cancel()
            await asyncio.gather(there, back, return_exceptions=True)
        except OSError:
            pass  # the server is away: the client learns it by the reset
        finally:
            self._links.discard(link)
            link.cut()

    def _end(self, link: _Link) -> None:
        if link in self._links:
            self.cuts += 1
            link.cut()

    async def _pump(self, reader: asyncio.StreamReader, link: _Link, forward: Callable[[bytes], None]) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(_CHUNK):
                if self.latency:
                    await asyncio.sleep(self.latency)
                if not link.silent:
                    forward(piece)

    def _ask(self, link: _Link, server: asyncio.StreamWriter, piece: bytes) -> None:
        if self.lose_replies and self._random.random() < self.lose_replies:
            link.swallow = True
        server.write(piece)

    def _answer(self, link: _Link, piece: bytes) -> None:
        if link.swallow:
            self.lost_replies += 1
            link.cut()
        else:
            link.client.write(piece)
