"""Overload, open loop: twice and ten times what the server can do; what it does stays what it can do."""

import asyncio
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.soak.http_load import BROKEN, Answer, Connection, OpenLoop, closed_loop, put
from benchmarks.soak.measures import by_status, milliseconds, resident
from benchmarks.soak.service import Service

_PEAK_CLIENTS = 32
_LEAST_GOODPUT = 0.9
_REFUSAL_MS = 20.0
_DEADLINE = 10.0  # seconds
_REQUESTS, _WAITING = 1024, 512  # what is let in at once: requests by HTTP, images by the engine
_SPARE_BYTES = 150_000_000  # for connections, for images being decoded and computed, for what malloc keeps


async def run(
    folder: Path, image: bytes, *, network: str, photos: list[Path], seconds: float, runtime: str = "auto"
) -> dict[str, Any]:
    """The peak is what 32 clients get that wait for their answers. `network`: torchvision's, or `toy`."""
    limits = {"max_requests": str(_REQUESTS), "max_waiting_images": str(_WAITING)}
    service = Service(folder / "overload", request_timeout_seconds=str(_DEADLINE), runtime=runtime, **limits)
    if network != "toy":
        from benchmarks import photo_models  # noqa: PLC0415 - it computes; the toy needs nothing of it

        models, work = service.layout.models, folder / "photo-model"
        name = await asyncio.to_thread(photo_models.publish, models, network, photos, work=work)
        service.environment["RESNETD_MODEL"] = name
    async with service.running():
        await service.settled()
        return await _measure(service, put("/v1/classify", image), seconds=seconds)


def memory_bound(size: int) -> int:
    """Bytes by which the server's own memory may grow under any load of requests of `size` bytes.

    What is let in is twice in memory while it goes from one hand to the next; what is refused is nowhere.
    """
    return 2 * (_REQUESTS + _WAITING) * size + _SPARE_BYTES


async def _measure(service: Service, request: bytes, *, seconds: float) -> dict[str, Any]:
    began, used = time.perf_counter(), time.process_time()
    peak = await _peak(service, request, seconds=seconds)
    cores = {"peak": (time.process_time() - used) / (time.perf_counter() - began)}
    before = resident(service.pids())
    most = [before]
    sampling = asyncio.create_task(_sample(service, most))
    at = {}
    for times in (2, 10):
        began, used = time.perf_counter(), time.process_time()
        answers = await OpenLoop(service.address, [request], rate=peak * times, seconds=seconds).run()
        took = time.perf_counter() - began
        cores[f"{times}x"] = (time.process_time() - used) / took
        at[f"{times}x"] = _judged(answers, offered=peak * times, peak=peak, took=took)
    sampling.cancel()
    after = resident(service.pids())
    own = {"before": before, "at_most": max(*most, after), "after": after}
    bound = memory_bound(len(request))
    return {
        "passed": all(each["passed"] for each in at.values()) and own["at_most"] - before <= bound,
        "peak_per_s": round(peak, 1),
        "deadline_s": _DEADLINE,
        "at": at,
        "client_cores": {name: round(each, 2) for name, each in cores.items()},  # of the server's, on one machine
        "own_mb": {name: round(value / 1e6, 1) for name, value in own.items()},
        "own_mb_may_grow_by": round(bound / 1e6, 1),
    }


def _judged(answers: Sequence[Answer], *, offered: float, peak: float, took: float) -> dict[str, Any]:
    good = [answer for answer in answers if answer.status == 200]
    refused = [answer for answer in answers if answer.status in (429, 503)]
    goodput = len(good) / took / peak
    accepted, refusal = (milliseconds(each, share=0.99) for each in (good, refused))  # their medians are no longer
    broken = any(answer.status == BROKEN for answer in answers)
    kept = goodput >= _LEAST_GOODPUT and accepted <= _DEADLINE * 1000
    return {
        "passed": kept and refusal <= _REFUSAL_MS and not broken,
        "offered_per_s": round(offered, 1),
        "goodput_of_peak": round(goodput, 3),
        "statuses": by_status(answers),
        "accepted_p99_ms": accepted,
        "refused_p50_ms": milliseconds(refused, share=0.5),
        "refused_p99_ms": refusal,
        # Not the server's: where it is much, this client or the machine was too slow to offer so many.
        "sent_late_p50_ms": round(1000 * statistics.median(answer.late for answer in answers), 1),
    }


async def _peak(service: Service, request: bytes, *, seconds: float) -> float:
    """Answers a second to clients that wait for them; the first third of the time is warming up."""
    connections = [Connection(service.address) for _ in range(_PEAK_CLIENTS)]
    began = time.perf_counter()
    counted = 0

    async def ask(number: int) -> None:
        nonlocal counted
        answer = await connections[number].ask(request)
        counted += answer.status == 200 and time.perf_counter() - began > seconds / 3

    await closed_loop(ask, clients=_PEAK_CLIENTS, going=lambda: time.perf_counter() - began < seconds)
    for connection in connections:
        connection.close()
    return counted / (time.perf_counter() - began - seconds / 3)


async def _sample(service: Service, most: list[int]) -> None:
    """The most memory of its own that the service had, until cancelled."""
    while True:
        most[0] = max(most[0], resident(service.pids()))
        await asyncio.sleep(0.5)
