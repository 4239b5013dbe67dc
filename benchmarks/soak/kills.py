"""Engine kills under load: /readyz says so, every request is answered, and the engine is back by itself."""

import asyncio
import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Any

from benchmarks.soak.http_load import BROKEN, Answer, Connection, closed_loop, get, put
from benchmarks.soak.measures import by_status
from benchmarks.soak.service import Service
from benchmarks.soak.waiting import until_it_says

_NOTICED_SECONDS = 2.0


async def run(
    folder: Path, image: bytes, *, kills: int, clients: int, pause: float, services: int = 1, runtime: str = "auto"
) -> dict[str, Any]:
    """So many kills, shared out among several services side by side, each with `clients` of its own.

    `pause`: seconds of service between being back and the next kill; from 30 on the back-off begins anew.
    """
    request, shares = put("/v1/classify", image), [len(range(n, kills, services)) for n in range(services)]
    async with contextlib.AsyncExitStack() as running:
        started = [
            await running.enter_async_context(Service(folder / f"kills-{number}", runtime=runtime).running())
            for number in range(services)
        ]
        found = await asyncio.gather(
            *(
                _kill(service, request, kills=share, clients=clients, pause=pause)
                for service, share in zip(started, shares, strict=True)
            )
        )
    answers = [answer for each, _, _ in found for answer in each]
    noticed = [seconds for _, each, _ in found for seconds in each]
    back = sorted(seconds for _, _, each in found for seconds in each)
    unanswered = [answer for answer in answers if answer.status == BROKEN]
    odd = {status for status in by_status(answers) if status not in ("200", "503", "504")}
    return {
        "passed": not unanswered and not odd and max(noticed) <= _NOTICED_SECONDS,
        "kills": len(noticed),
        "services": services,
        "requests": len(answers),
        "statuses": by_status(answers),
        "unanswered": len(unanswered),
        "longest_until_not_ready_s": round(max(noticed), 2),
        "median_until_ready_again_s": round(back[len(back) // 2], 2),
        "longest_until_ready_again_s": round(back[-1], 2),
        "longest_answer_s": round(max(answer.seconds for answer in answers), 2),
    }


async def _kill(
    service: Service, request: bytes, *, kills: int, clients: int, pause: float
) -> tuple[list[Answer], list[float], list[float]]:
    """All answers; and of each kill the seconds until /readyz said so, and until it was ready again."""
    answers: list[Answer] = []
    connections = [Connection(service.address) for _ in range(clients)]
    killing = True

    async def ask(number: int) -> None:
        answer = await connections[number].ask(request)
        answers.append(answer.without_body)
        if answer.status != 200:
            await asyncio.sleep(0.2)  # as Retry-After asks, only shorter

    loading = asyncio.create_task(closed_loop(ask, clients=clients, going=lambda: killing))
    probe = Connection(service.address)
    noticed, back = [], []
    for _ in range(kills):
        pid = service.engine_pid()
        assert pid is not None
        began = time.perf_counter()
        os.kill(pid, signal.SIGKILL)
        await until_it_says(lambda: _says(probe, 503))
        noticed.append(time.perf_counter() - began)
        await until_it_says(lambda: _says(probe, 200))
        back.append(time.perf_counter() - began)
        await asyncio.sleep(pause)
    killing = False
    await loading
    for connection in (*connections, probe):
        connection.close()
    return answers, noticed, back


async def _says(probe: Connection, status: int) -> bool:
    return (await probe.ask(get("/readyz"))).status == status
