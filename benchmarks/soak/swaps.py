"""Swaps under load: the alias moves to version after version, some of them broken, and no request fails."""

import asyncio
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from benchmarks.soak.http_load import Answer, Connection, closed_loop, put
from benchmarks.soak.measures import by_status, milliseconds
from benchmarks.soak.service import Service, publish
from benchmarks.soak.waiting import until
from models.catalog import PRODUCTION, Catalog

_HARMS = ("cut", "other")


async def run(
    folder: Path,
    image: bytes,
    *,
    swaps: int,
    requests: int,
    clients: int,
    broken_every: int = 5,
    runtime: str = "auto",
) -> dict[str, Any]:
    """Every fifth version is broken: the one before it must go on serving. At least so many swaps and requests."""
    request = put("/v1/classify", image)
    async with Service(folder / "swaps", runtime=runtime).running() as service:
        return await _measure(
            service, request, swaps=swaps, requests=requests, clients=clients, broken_every=broken_every
        )


async def _measure(
    service: Service, request: bytes, *, swaps: int, requests: int, clients: int, broken_every: int
) -> dict[str, Any]:
    catalog = Catalog(service.layout.models)
    answers: list[Answer] = []
    seen: Counter[int] = Counter()
    allowed = {1}
    wrong: list[int] = []
    connections = [Connection(service.address) for _ in range(clients)]
    swapping = True

    async def ask(number: int) -> None:
        answer = await connections[number].ask(request)
        answers.append(answer.without_body)
        if answer.status == 200:
            version = orjson.loads(answer.body)["version"]
            seen[version] += 1
            if version not in allowed:
                wrong.append(version)

    loading = asyncio.create_task(closed_loop(ask, clients=clients, going=lambda: swapping or len(answers) < requests))
    took, refused = [], 0
    for number in range(1, swaps + 1):
        harm = _HARMS[number // broken_every % 2] if number % broken_every == 0 else ""
        version = await asyncio.to_thread(publish, service.layout, "toy", f"job_{number}", harm=harm)
        if not harm:
            allowed.add(version)
        began = time.perf_counter()
        catalog.set_alias("toy", PRODUCTION, version)
        if harm:
            await until(partial(_failed, service, version))
            refused += 1
        else:
            await until(partial(seen.__contains__, version))
            took.append(time.perf_counter() - began)
            await until(lambda: len(service.engines()) == 1)  # the old one has drained and ended
            allowed -= {each for each in allowed if each != version}
    swapping = False
    await loading
    for connection in connections:
        connection.close()
    failed = [answer for answer in answers if answer.status != 200]
    return {
        "passed": not failed and not wrong,
        "swaps": swaps,
        "broken_versions_refused": refused,
        "requests": len(answers),
        "failed": len(failed),
        "statuses": by_status(answers),
        "reasons": sorted({answer.reason for answer in failed})[:5],
        "answers_of_a_wrong_version": len(wrong),
        "p50_ms": milliseconds(answers, share=0.5),
        "p99_ms": milliseconds(answers, share=0.99),
        "longest_swap_s": round(max(took, default=0.0), 2),
    }


def _failed(service: Service, version: int) -> bool:
    return service.state(version) == "failed"
