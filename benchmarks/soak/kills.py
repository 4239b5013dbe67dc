"""Engine kills under load: /readyz says so, every request is answered, and the engine is back by itself."""

import asyncio
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


async def run(folder: Path, image: bytes, *, kills: int, clients: int, pause: float) -> dict[str, Any]:
    """`pause`: seconds of service between being back and the next kill; from 30 on the back-off begins anew."""
    async with Service(folder / "kills").running() as service:
        return await _measure(service, put("/v1/classify", image), kills=kills, clients=clients, pause=pause)


async def _measure(service: Service, request: bytes, *, kills: int, clients: int, pause: float) -> dict[str, Any]:
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
    unanswered = [answer for answer in answers if answer.status == BROKEN]
    odd = {status for status in by_status(answers) if status not in ("200", "503", "504")}
    return {
        "passed": not unanswered and not odd and max(noticed) <= _NOTICED_SECONDS,
        "kills": kills,
        "requests": len(answers),
        "statuses": by_status(answers),
        "unanswered": len(unanswered),
        "longest_until_not_ready_s": round(max(noticed), 2),
        "median_until_ready_again_s": round(sorted(back)[len(back) // 2], 2),
        "longest_until_ready_again_s": round(max(back), 2),
        "longest_answer_s": round(max(answer.seconds for answer in answers), 2),
    }


async def _says(probe: Connection, status: int) -> bool:
    return (await probe.ask(get("/readyz"))).status == status
