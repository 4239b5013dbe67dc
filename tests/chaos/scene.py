"""The frame of a scenario: a stack, a history, a client; and at the end a report of what was counted and found."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import checker
from clients import Client, training
from history import History
from redis import RedisError
from stack import Stack
from world import World, gather

CANARY_SECONDS = 60.0


@dataclass
class Report:
    """Counts add up over stacks that ran side by side; samples are put together before their percentiles are taken."""

    counts: Counter[str] = field(default_factory=Counter)
    samples: dict[str, list[float]] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)

    def sample(self, name: str, *values: float) -> None:
        self.samples.setdefault(name, []).extend(values)

    def violate(self, what: str) -> None:
        self.violations.append(what)

    def figures(self) -> dict[str, Any]:
        samples = {name: percentiles(values) for name, values in sorted(self.samples.items())}
        return {**dict(sorted(self.counts.items())), **samples, "violations": self.violations}


def together(reports: Sequence[Report]) -> Report:
    whole = Report()
    for report in reports:
        whole.counts.update(report.counts)
        for name, values in report.samples.items():
            whole.sample(name, *values)
        whole.violations += report.violations
    return whole


def percentiles(values: Sequence[float]) -> dict[str, float | int]:
    """Count, median, 99th percentile (nearest rank) and maximum."""
    if not values:
        return {"n": 0}
    ordered = sorted(values)
    rank = -(-99 * len(ordered) // 100) - 1
    return {
        "n": len(ordered),
        "p50": round(ordered[len(ordered) // 2], 3),
        "p99": round(ordered[rank], 3),
        "max": round(ordered[-1], 3),
    }


def share(total: int, stacks: int) -> list[int]:
    """`total` in `stacks` parts of nearly one size."""
    return [total // stacks + (n < total % stacks) for n in range(stacks)]


async def side_by_side(
    folder: Path, stacks: int, one: Callable[[Path, int], Awaitable[Report]], *, at_once: int | None = None
) -> Report:
    """`one(folder, n)` for each of `stacks` stacks, `at_once` of them at a time."""
    gate = asyncio.Semaphore(at_once or stacks)

    async def run(n: int) -> Report:
        async with gate:
            return await one(folder / f"stack-{n}", n)

    return together(await asyncio.gather(*(run(n) for n in range(stacks))))


@dataclass
class Scene:
    stack: Stack
    history: History
    client: Client
    report: Report = field(default_factory=Report)
    canaries: int = 0
    #: Where webhooks may be sent to.
    webhook: str | None = None

    async def canary(self, name: str) -> None:
        """A job that is asked for now must end within a minute, without a hand."""
        began = time.monotonic()
        self.canaries += 1
        job = await self.client.submit(training(seed=10**6 + self.canaries, epochs=1), seconds=CANARY_SECONDS)
        left = CANARY_SECONDS - (time.monotonic() - began)
        ended = await self.client.wait(job, seconds=left) if job and left > 0 else None
        took = time.monotonic() - began
        self.report.sample("canary_s", took)
        if ended is None or took > CANARY_SECONDS:
            self.report.violate(f"canary: {name}: not ended after {took:.0f} s")

    async def queued(self) -> int:
        """How many jobs wait; many while nobody can tell."""
        try:
            return int(await asyncio.to_thread(self.stack.redis.zcard, "rn:state:queued"))
        except RedisError:
            return 10**6

    async def running(self, job: str) -> None:
        """Wait until the job's process runs."""
        while True:
            if job in self.stack.trainers().values():
                return
            await asyncio.sleep(0.1)

    async def settle(self, jobs: Sequence[str], *, seconds: float = 300.0) -> None:
        """Wait until all these jobs have ended; the checker says it where one has not."""
        await asyncio.gather(*(self.client.wait(job, seconds=seconds) for job in jobs))

    async def conclude(self, limits: checker.Limits | None = None) -> World:
        """Gather, check, and count what every scenario counts."""
        world = await gather(self.stack, self.history)
        self.report.violations += [str(each) for each in await asyncio.to_thread(checker.check, world, limits)]
        count = self.report.counts
        count["jobs"] += len(world.jobs)
        count.update(f"jobs_{record['state']}" for record in world.jobs.values())
        count.update(f"error_{record['error']['code']}" for record in world.jobs.values() if record["error"])
        count["claims"] += sum(record["attempts"] for record in world.jobs.values())
        count["steps_run"] += sum(1 for line in world.ran if "step" in line)
        count["events"] += sum(len(events) for events in world.events.values())
        count["fenced_calls"] += len(world.calls)
        count["fenced_calls_refused"] += sum(1 for line in world.calls if line["lost"])
        return world


@contextlib.asynccontextmanager
async def scene(folder: Path, **options: Any) -> AsyncIterator[Scene]:
    """A running stack and a client of it; `options` are the stack's."""
    history = History(folder / "history.jsonl")
    stack = Stack(folder / "stack", **options)
    await asyncio.to_thread(stack.start)
    try:
        async with Client(stack.url, history, "client") as client:
            yield Scene(stack, history, client)
    finally:
        await asyncio.to_thread(stack.stop)
        history.close()
