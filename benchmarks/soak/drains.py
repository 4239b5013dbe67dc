"""SIGTERMs behind two instances: a load balancer looks at /readyz and closes what is closed; no request fails."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.soak.http_load import Address, Answer, Connection, closed_loop, get, put
from benchmarks.soak.measures import by_status, milliseconds
from benchmarks.soak.service import Service
from benchmarks.soak.waiting import until

_CHECK_SECONDS = 0.25
_DELAY = "1.5"


class Balancer:
    """Round robin over the instances that are ready. It repeats no request: what fails, fails."""

    def __init__(self, addresses: Sequence[Address], *, clients: int) -> None:
        self.ready = dict.fromkeys(addresses, False)
        self._turn = 0
        self._connections = [{address: Connection(address) for address in addresses} for _ in range(clients)]

    async def watch(self) -> None:
        """Look at every instance's /readyz, until cancelled."""
        probes = {address: Connection(address) for address in self.ready}
        try:
            while True:
                for address, probe in probes.items():
                    self.ready[address] = (await probe.ask(get("/readyz"))).status == 200
                await asyncio.sleep(_CHECK_SECONDS)
        finally:
            for probe in probes.values():
                probe.close()

    def close(self) -> None:
        for connections in self._connections:
            for connection in connections.values():
                connection.close()

    async def ask(self, client: int, request: bytes) -> Answer:
        able = [address for address, ready in self.ready.items() if ready]
        self._turn += 1
        return await self._connections[client][able[self._turn % len(able)]].ask(request)


async def run(folder: Path, image: bytes, *, stops: int, clients: int, runtime: str = "auto") -> dict[str, Any]:
    """`stops`: SIGTERMs, to one instance and the other in turn, each once both are ready."""
    services = [
        Service(folder / f"drains-{number}", drain_delay_seconds=_DELAY, runtime=runtime) for number in range(2)
    ]
    try:
        for service in services:
            service.start()
        for service in services:
            await service.ready()
        return await _measure(services, put("/v1/classify", image), stops=stops, clients=clients)
    finally:
        for service in services:
            service.kill()


async def _measure(services: Sequence[Service], request: bytes, *, stops: int, clients: int) -> dict[str, Any]:
    balancer = Balancer([service.address for service in services], clients=clients)
    watching = asyncio.create_task(balancer.watch())
    await until(lambda: all(balancer.ready.values()))
    answers: list[Answer] = []
    stopping = True

    async def ask(number: int) -> None:
        answer = await balancer.ask(number, request)
        answers.append(answer.without_body)

    loading = asyncio.create_task(closed_loop(ask, clients=clients, going=lambda: stopping))
    took, statuses = [], []
    for number in range(stops):
        service = services[number % 2]
        seconds, status = await service.stop()
        took.append(seconds)
        statuses.append(status)
        service.start()
        await service.ready()
        await until(lambda: all(balancer.ready.values()))
    stopping = False
    await loading
    watching.cancel()
    balancer.close()
    failed = [answer for answer in answers if answer.status != 200]
    return {
        "passed": not failed and not any(statuses),
        "sigterms": stops,
        "requests": len(answers),
        "failed": len(failed),
        "statuses": by_status(answers),
        "reasons": sorted({answer.reason for answer in failed})[:5],
        "exit_statuses": sorted(set(statuses)),
        "longest_stop_s": round(max(took), 2),
        "p99_ms": milliseconds(answers, share=0.99),
    }
