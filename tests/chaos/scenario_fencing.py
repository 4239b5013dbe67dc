"""Supervisors that are stopped for longer than their lease and then go on, as if nothing had been."""

import asyncio
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

from checker import Limits
from clients import training
from scene import Report, Scene, scene, share, side_by_side
from stack import children, strike

from jobs.answers import Claim, LeaseLost
from jobs.ledger import Ledger
from jobs.model import JobError, Kind
from jobs.redis import connect

_ERROR = JobError(code="stale", message="written by a claim that is over")
WRITES_A_STOP = 35


async def fencing(
    folder: Path, *, seed: int, stops: int, seconds: float, lease_ms: int | None, workers: int, stacks: int
) -> Report:
    """`stops` stops of `seconds`, half of the workers at a time; every one also tries to write by hand, many times."""
    shares = share(stops, stacks)

    async def one(place: Path, n: int) -> Report:
        async with scene(place, workers=workers, lease_ms=lease_ms) as it:
            asking = asyncio.create_task(_keep_busy(it, workers))
            left = shares[n]
            while left > 0:
                left -= await _round(it, random.Random(seed + n + left), min(left, workers // 2), seconds)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            await it.settle([job["id"] for job in await it.client.pages("/v1/jobs")])
            await it.conclude(Limits(stray_ms=seconds * 1000 + 5000))
        return it.report

    report = await side_by_side(folder, stacks, one)
    report.counts["stale_writes_refused"] += report.counts["fenced_calls_refused"]
    return report


async def _keep_busy(it: Scene, workers: int) -> None:
    """Jobs that take a while, so that who takes over is still at work when the stopped one wakes up."""
    number = 0
    while True:
        if await it.queued() < max(1, workers // 4):
            number += 1
            await it.client.submit(training(seed=number, epochs=25, steps=100, model=f"m{number // 20}"))
        await asyncio.sleep(0.2)


async def _round(it: Scene, chance: random.Random, stops: int, seconds: float) -> int:
    """Stop some supervisors at once, write in their name once others have their jobs, and let them go on."""
    held = _supervisors(it)
    while len(held) < stops:
        await asyncio.sleep(0.1)
        held = _supervisors(it)
    chosen = chance.sample(sorted(held.items()), stops)
    claims = {}
    for pool, (job, trainer) in chosen:
        number = it.stack.redis.hget(f"rn:job:{job}", "claim")
        claims[job] = Claim(job_id=job, number=int(str(number)), kind=Kind.TRAIN, spec={})
        it.history.add("info", "stop", pid=pool, job=job, claim=int(str(number)))
        strike(pool, signal.SIGSTOP)
        if chance.random() < 0.5:  # the job's process too, as on a machine that is stopped as a whole
            strike(trainer, signal.SIGSTOP)
        # Who is free next takes these first, as long as the stop lasts.
        await it.client.patch(job, {"priority": "high"})
    it.report.counts["stops"] += stops
    until = time.monotonic() + seconds
    ledger = Ledger(connect(it.stack.redis_url))
    for job, claim in claims.items():
        while True:
            if it.stack.redis.hget(f"rn:job:{job}", "claim") != str(claim.number):
                it.report.counts["overtaken_while_stopped"] += 1
                await asyncio.to_thread(_write_stale, it.report, ledger, claim)
                break
            if time.monotonic() > until:
                break
            await asyncio.sleep(0.05)
    await asyncio.sleep(max(0.0, until - time.monotonic()))
    for pool, (_, trainer) in chosen:
        strike(trainer, signal.SIGCONT)
        strike(pool, signal.SIGCONT)
    ledger.redis.close()
    return stops


def _supervisors(it: Scene) -> dict[int, tuple[str, int]]:
    """Pool process → (its job, that job's process)."""
    trainers = it.stack.trainers()
    return {
        pool: (trainers[pid], pid)
        for part in it.stack.parts
        if part.name.startswith("worker")
        for pool in it.stack.pool(part.name)
        for pid in children(pool)
        if pid in trainers and _holds(it, pool, trainers[pid])
    }


def _holds(it: Scene, pool: int, job: str) -> bool:
    """Whether the job is still this process's: one that was overtaken and woke up a moment ago may not know it yet."""
    owner = str(it.stack.redis.hget(f"rn:job:{job}", "owner"))  # …:pid:start time
    return owner.split(":")[-2:-1] == [str(pool)]


def _write_stale(report: Report, ledger: Ledger, claim: Claim) -> None:
    writes: list[Callable[[], object]] = [
        lambda: ledger.renew(claim),
        lambda: ledger.look(claim),
        lambda: ledger.orders(claim),
        lambda: ledger.emit(claim, 10**6, [("epoch", {"claim": claim.number, "step": -1})]),
        lambda: ledger.begin_publishing(claim, {"artifact": "a"}),
        lambda: ledger.succeed(claim, {"stale": True}),
        lambda: ledger.fail(claim, _ERROR),
        lambda: ledger.cancelled(claim),
        lambda: ledger.release(claim, crash=_ERROR),
        lambda: ledger.release(claim, crash=None),
    ]
    for number in range(WRITES_A_STOP):
        try:
            writes[number % len(writes)]()
        except LeaseLost:
            report.counts["stale_writes_refused"] += 1
        else:
            report.violate(f"fencing: write {number % len(writes)} of {claim.job_id} claim {claim.number} was accepted")
