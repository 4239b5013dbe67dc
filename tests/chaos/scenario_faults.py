"""Every named point of the code, struck once by every action, while jobs do everything that jobs can do."""

import asyncio
import random
import time
from pathlib import Path

from checker import Limits
from errands import ERRANDS, Errand, webhook_receiver
from scene import Report, Scene, scene, side_by_side

from store.faults import POINTS

LIMIT_SECONDS = 420.0


async def faults(
    folder: Path,
    *,
    seed: int,
    stop_seconds: float,
    lease_ms: int | None,
    points_a_stack: int,
    at_once: int,
    points: tuple[str, ...] = (),
) -> Report:
    """`points` (all where none is named) × kill, stop, raise: `points_a_stack` of them and one action on each stack."""
    chosen = list(points or POINTS)
    actions = ("kill", f"stop:{stop_seconds:g}", "raise")
    plans = [
        [f"{point}:1:{action}" for point in chosen[n : n + points_a_stack]]
        for action in actions
        for n in range(0, len(chosen), points_a_stack)
    ]

    async def one(place: Path, n: int) -> Report:
        return await _one(place, plans[n], seed=seed + n, stop_seconds=stop_seconds, lease_ms=lease_ms)

    return await side_by_side(folder, len(plans), one, at_once=at_once)


async def _one(folder: Path, plan: list[str], *, seed: int, stop_seconds: float, lease_ms: int | None) -> Report:
    marks = folder / "marks"
    await asyncio.to_thread(marks.mkdir, parents=True)
    environment = {"RESNETD_FAULT": ",".join(plan), "RESNETD_FAULT_ONCE": str(marks), "CHAOS_SPILL": "40"}
    async with (
        webhook_receiver() as url,
        scene(folder, apis=2, workers=2, lease_ms=lease_ms, environment=environment) as it,
    ):
        it.webhook = url
        until = time.monotonic() + LIMIT_SECONDS
        number = 0
        while _missing(plan, marks) and time.monotonic() < until:
            number += 1
            await asyncio.gather(*(_run(it, errand, seed + number) for errand in ERRANDS))
        await asyncio.sleep(stop_seconds if "stop" in plan[0] else 0.0)  # whoever was stopped last goes on
        await it.settle([job["id"] for job in await it.client.pages("/v1/jobs")])
        # A supervisor that is stopped does not hear that its job has ended: its process runs on meanwhile.
        await it.conclude(Limits(stray_ms=stop_seconds * 1000 + 5000))
    for entry in _missing(plan, marks):
        it.report.violate(f"{entry} was never passed")
    it.report.counts["faults"] += len(plan) - len(_missing(plan, marks))
    where = plan[0] if len(plan) == 1 else folder.name
    it.report.violations = [f"{violation} [{where}]" for violation in it.report.violations]
    return it.report


async def _run(it: Scene, errand: Errand, seed: int) -> None:
    try:
        await errand(it, random.Random(f"{errand.__name__} {seed}"))
    except (LookupError, TimeoutError) as error:
        it.report.violate(f"errand {errand.__name__}: {error!r}")


def _missing(plan: list[str], marks: Path) -> list[str]:
    """The faults that have not struck yet."""
    struck = {mark.name for mark in marks.iterdir()}
    return [entry for entry in plan if "-".join(entry.split(":")[:3]) not in struck]
