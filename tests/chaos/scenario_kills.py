"""Random kill -9 of everything, while a client goes on asking for trainings."""

import asyncio
import random
from pathlib import Path

from checker import TERMINAL, milliseconds
from clients import training
from nemesis import Nemesis
from scene import Report, Scene, scene, share, side_by_side
from world import World

RECOVERY_SECONDS = 45.0


async def kills(
    folder: Path, *, seed: int, kills: int, jobs: int, pause: tuple[float, float], stacks: int, slack: float = 1.0
) -> Report:
    """`kills` kills in the proportions of `nemesis`, over at least `jobs` jobs; then everything must come to an end."""
    shares = list(zip(share(kills, stacks), share(jobs, stacks), strict=True))

    async def one(place: Path, n: int) -> Report:
        return await _one(place, seed=seed + n, kills=shares[n][0], jobs=shares[n][1], pause=pause)

    report = await side_by_side(folder, stacks, one)
    recoveries = sorted(report.samples.get("recovery_s", []))
    if recoveries and recoveries[-(len(recoveries) // 100) - 1] > RECOVERY_SECONDS * slack:
        report.violate(f"recovery after a worker's death takes more than {RECOVERY_SECONDS * slack:g} s")
    return report


async def _one(folder: Path, *, seed: int, kills: int, jobs: int, pause: tuple[float, float]) -> Report:
    chance = random.Random(seed)
    async with scene(folder) as it:
        nemesis = Nemesis(it.stack, it.history, seed)
        killing = asyncio.create_task(nemesis.kill_all(kills, pause=pause))
        accepted = await _ask_until(it, chance, killing, jobs)
        await killing
        await it.settle(accepted)
        world = await it.conclude()
    it.report.counts.update({f"kills_{role}": times for role, times in nemesis.done.items()})
    it.report.sample("recovery_s", *recoveries(world))
    return it.report


async def _ask_until(it: Scene, chance: random.Random, killing: "asyncio.Task[None]", jobs: int) -> list[str]:
    """Keep a few jobs waiting until the killing is over and there were enough."""
    accepted: list[str] = []
    while not killing.done() or len(accepted) < jobs:
        if await it.queued() >= 5:
            await asyncio.sleep(0.05)
            continue
        asked = training(seed=len(accepted), epochs=chance.randint(1, 10), model=f"m{len(accepted) // 20}")
        job = await it.client.submit(asked)
        accepted += [job] if job else []
    return accepted


def recoveries(world: World) -> list[float]:
    """Seconds from each death of a worker (main or pool process) until the job that it ran runs again or has ended."""
    found = []
    for kill in world.history:
        if kill["op"] != "kill" or kill.get("role") not in {"worker", "pool"}:
            continue
        for job in kill.get("jobs", []):
            moments = [
                milliseconds(event)
                for event in world.events.get(job, [])
                if event["type"] in {"running"} | TERMINAL and milliseconds(event) >= kill["t"]
            ]
            found += [(moments[0] - kill["t"]) / 1000] if moments else []
    return found
