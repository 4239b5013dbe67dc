"""What clients do to the system, and what the network does to them: cancellations, streams, repeated requests."""

import asyncio
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
from checker import TERMINAL, milliseconds
from clients import Client, training
from proxy import Proxy
from scene import Report, Scene, scene, share, side_by_side
from stack import strike
from world import World

CANCEL_SECONDS = 3.0


async def cancels(folder: Path, *, seed: int, times: int, stacks: int, slack: float = 1.0) -> Report:
    """Jobs cancelled at a random moment between their submission and their end."""
    shares = share(times, stacks)

    async def one(place: Path, n: int) -> Report:
        chance = random.Random(seed + n)
        async with scene(place) as it:
            left = iter(range(shares[n]))
            await asyncio.gather(*(_cancel_one_by_one(it, chance, left) for _ in range(2)))
            world = await it.conclude()
        _sample_cancels(it.report, world)
        return it.report

    report = await side_by_side(folder, stacks, one)
    taken = sorted(report.samples.get("cancel_s", []))
    if taken and taken[-(len(taken) // 100) - 1] > CANCEL_SECONDS * slack:
        report.violate(f"a cancellation takes more than {CANCEL_SECONDS * slack:g} s")
    return report


async def _cancel_one_by_one(it: Scene, chance: random.Random, left: Iterator[int]) -> None:
    for number in left:  # one iterator for all who cancel
        asked = training(seed=number, epochs=chance.randint(1, 10), model=f"m{number // 20}")
        job = await it.client.submit(asked)
        if job is not None:
            await asyncio.sleep(chance.uniform(0.0, 1.2))
            await it.client.verb(job, "cancel")
            it.report.counts["cancels"] += 1
            await it.client.wait(job, seconds=60.0)


def _sample_cancels(report: Report, world: World) -> None:
    """How long after a cancellation was asked for its job had ended, by Redis's clock; and how each came out."""
    asked: dict[str, float] = {}
    for line in world.history:
        if line["op"] != "cancel":
            continue
        if line["type"] == "invoke":
            asked[line["job"]] = line["t"]
            continue
        events = world.events.get(line["job"], [])
        if line["type"] == "ok" and events and events[-1]["type"] in TERMINAL:
            report.sample("cancel_s", max(0.0, milliseconds(events[-1]) - asked[line["job"]]) / 1000)
            report.counts["cancelled_running" if "cancelling" in _types(events) else "cancelled_queued"] += 1
        elif line["type"] == "fail":
            report.counts["ended_before"] += 1


def _types(events: list[dict[str, object]]) -> set[object]:
    return {event["type"] for event in events}


async def sse(
    folder: Path,
    *,
    seed: int,
    clients: int,
    jobs: int,
    epochs: int,
    followed: int,
    lifetime: tuple[float, float],
    restarts: int,
    pause: tuple[float, float],
) -> Report:
    """`clients` clients on connections that live for `lifetime` follow `followed` jobs each, one after the other.

    Each job has `epochs` epoch events and a few others; the HTTP process is killed or stopped `restarts` times.
    """
    chance = random.Random(seed)
    async with scene(folder) as it:
        proxy = Proxy(("127.0.0.1", it.stack.port), seed=seed).start()
        proxy.lifetime = lifetime
        try:
            accepted: list[str] = []
            for number in range(jobs):
                asked = training(seed=number, epochs=epochs, steps=1, checkpoint_seconds=1.0)
                job = await it.client.submit(asked)
                accepted += [job] if job else []
            following = asyncio.gather(
                *(
                    _follow(it, f"http://127.0.0.1:{proxy.port}", f"c{n}", _spread(accepted, n, clients, followed))
                    for n in range(clients)
                )
            )
            restarting = asyncio.create_task(_restart(it, chance, restarts, pause, following))
            await following
            await restarting
            await it.settle(accepted)
        finally:
            proxy.stop()
        world = await it.conclude()
    watches = [line for line in world.history if line["op"] == "watch" and "ids" in line]
    it.report.counts.update(
        streams=len(watches), streamed_events=sum(len(line["ids"]) for line in watches), stream_cuts=proxy.cuts
    )
    for line in watches:
        if line["type"] != "ok":
            it.report.violate(f"sse: {line['client']} never saw the end of {line['job']}")
    return it.report


def _spread(jobs: list[str], n: int, clients: int, followed: int) -> list[str]:
    """The jobs that client `n` follows: all jobs have followers, most of them while they run."""
    start = n * len(jobs) // clients
    return [jobs[(start + offset) % len(jobs)] for offset in range(followed)]


async def _follow(it: Scene, url: str, name: str, jobs: list[str]) -> None:
    async with Client(url, it.history, name) as client:
        for job in jobs:
            await client.watch(job, seconds=3600.0)


async def _restart(
    it: Scene, chance: random.Random, times: int, pause: tuple[float, float], following: "asyncio.Future[Any]"
) -> None:
    for number in range(times):
        await asyncio.sleep(chance.uniform(*pause))
        if following.done():
            it.report.violate(f"sse: everybody had seen everything after {number} of {times} restarts")
            return
        if strike(it.stack.pid("api0"), chance.choice([signal.SIGKILL, signal.SIGTERM])):
            it.report.counts["api_restarts"] += 1


async def idempotency(folder: Path, *, seed: int, pairs: int, at_once: int, kills: int) -> Report:
    """Pairs of the same request under one key at the same time, while HTTP processes are killed; then another body."""
    chance = random.Random(seed)
    gate = asyncio.Semaphore(at_once)
    async with scene(folder, apis=2, workers=0) as it:

        async def pair(number: int) -> None:
            async with gate:
                asked = training(seed=number)
                await asyncio.gather(*(it.client.submit(asked, key=f"key-{number}") for _ in range(2)))

        asking = asyncio.gather(*(pair(number) for number in range(pairs)))
        for _ in range(kills):
            await asyncio.sleep(chance.uniform(0.2, 1.0))
            if not asking.done() and strike(it.stack.pid(chance.choice(["api0", "api1"]))):
                it.report.counts["api_kills"] += 1
        await asking
        it.report.counts["pairs"] = pairs
        for number in range(pairs):
            other = training(seed=2**31 + number)
            answer = await it.client.ask("POST", "/v1/jobs", json=other, key=f"key-{number}")
            refused = answer.status == httpx.codes.UNPROCESSABLE_ENTITY
            it.report.counts["conflicts_refused"] += refused
            if not refused or answer.body["code"] != "idempotency_conflict":
                it.report.violate(f"idempotency: another body under key-{number} was answered {answer.status}")
        listed = [job["id"] for job in await it.client.pages("/v1/jobs")]
        for job in listed:
            await it.client.verb(job, "cancel")
        await it.conclude()
        if len(listed) != pairs:
            it.report.violate(f"idempotency: {pairs} keys made {len(listed)} jobs")
    return it.report
