"""A long run of mixed requests on a small model: memory, descriptors and threads stay as they are; a leak shows."""

import asyncio
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.soak.http_load import Address, Connection, closed_loop, get, put
from benchmarks.soak.measures import Use, leaks, use
from benchmarks.soak.service import Service, free_port
from benchmarks.soak.waiting import until_it_says

_ABORT_EVERY, _BAD_EVERY = 20, 5
# Requests after which 1 KB of each shows: an HTTP process of 80 MB has then grown by 1.9 MB, without the leak by
# 0.3 MB; a hundredth, which counts as growth, lies between the two (twice each, equal to 0.1 MB).
_LEAK_SHOWS = 1500


async def run(folder: Path, image: bytes, *, requests: int, clients: int, runtime: str = "auto") -> dict[str, Any]:
    """Of the requests a fifth is refused in one way or the other, and a twentieth is aborted."""
    async with Service(folder / "memory", workers=2, runtime=runtime).running() as service:
        await service.settled()
        figures = await _soak(service.address, image, requests=requests, clients=clients, pids=service.pids)
        control = await _leaking(service, image, requests=max(requests // 20, _LEAK_SHOWS), clients=clients)
    caught = any("memory" in found for found in control["leaks"])
    return {"passed": not figures["leaks"] and caught, **figures, "a_leak_of_1_kb_was_caught": caught, "leaky": control}


async def _soak(
    address: Address, image: bytes, *, requests: int, clients: int, pids: Callable[[], list[int]]
) -> dict[str, Any]:
    mixed = _Mixed(address, image, clients=clients)
    early: Use | None = None

    async def ask(number: int) -> None:
        nonlocal early
        await mixed.ask(number)
        if early is None and mixed.asked >= requests // 10:
            early = use(pids())

    await closed_loop(ask, clients=clients, going=lambda: mixed.asked < requests)
    late = use(pids())
    mixed.close()
    assert early is not None
    return {
        "requests": mixed.asked,
        "statuses": {str(status): count for status, count in sorted(mixed.statuses.items())},
        "aborted": mixed.aborted,
        "pss_mb": [round(each.pss / 1e6, 1) for each in (early, late)],
        "own_mb": [round(each.own / 1e6, 1) for each in (early, late)],
        "fds": [early.fds, late.fds],
        "threads": [early.threads, late.threads],
        "leaks": leaks(early, late),
    }


class _Mixed:
    """What a crowd of honest and careless clients sends."""

    def __init__(self, address: Address, image: bytes, *, clients: int) -> None:
        self.asked = self.aborted = 0
        self.statuses: Counter[int] = Counter()
        self._address = address
        self._connections = [Connection(address) for _ in range(clients)]
        self._good = put("/v1/classify", image)
        self._bad = [
            put("/v1/classify", image[: len(image) // 3]),
            put("/v1/classify?top_k=0", image),
            put("/v1/models/nothing:classify", image),
            put("/v1/classify", b"no picture"),
            get("/nothing"),
        ]

    async def ask(self, client: int) -> None:
        self.asked += 1
        if self.asked % _ABORT_EVERY == 0:
            await self._abort()
            return
        bad = self.asked % _BAD_EVERY == 0 or self.asked % _ABORT_EVERY == 1
        request = self._bad[self.asked // _BAD_EVERY % len(self._bad)] if bad else self._good
        self.statuses[(await self._connections[client].ask(request)).status] += 1

    def close(self) -> None:
        for connection in self._connections:
            connection.close()

    async def _abort(self) -> None:
        """Half of a body, or a whole one and nobody who waits for the answer."""
        self.aborted += 1
        _, writer = await asyncio.open_connection(*self._address)
        writer.write(self._good if self.aborted % 2 else self._good[: len(self._good) // 2])
        await writer.drain()
        writer.transport.abort()


async def _leaking(service: Service, image: bytes, *, requests: int, clients: int) -> dict[str, Any]:
    """The same, through an HTTP process that keeps 1 KB of each request, on the same engine."""
    port = free_port()
    environment = {**service.environment, "RESNETD_PORT": str(port), "RESNETD_HTTP_WORKERS": "1"}
    command = (sys.executable, "-m", "benchmarks.soak.leaking")
    with service.log.open("ab") as log:
        process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=log, stderr=log)
    connection = Connection(("127.0.0.1", port))
    try:
        await until_it_says(lambda: _lives(connection))
        return await _soak(connection.address, image, requests=requests, clients=clients, pids=lambda: [process.pid])
    finally:
        connection.close()
        process.kill()
        await process.wait()


async def _lives(connection: Connection) -> bool:
    return (await connection.ask(get("/livez"))).status == 200
