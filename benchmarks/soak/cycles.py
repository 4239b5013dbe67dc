"""Loading and unloading: after many cycles the memory is back where it was, and no process is left."""

from pathlib import Path
from typing import Any

from benchmarks.soak.measures import leaks, use
from benchmarks.soak.service import Service, publish


async def run(folder: Path, *, cycles: int, runtime: str = "auto") -> dict[str, Any]:
    """Each cycle loads a second model, waits until it has proven itself, and unloads it. The second cycle is the start:
    the first has warmed up whoever starts processes.
    """
    service = Service(folder / "cycles", runtime=runtime)
    publish(service.layout, "other", "job_other")
    async with service.running():
        await service.settled()
        before = None
        for cycle in range(cycles + 1):
            assert (await service.tell_fleet("ensure", "other", 1))["state"] == "ready"
            assert (await service.tell_fleet("unload", "other", 1))["state"] == "unloaded"
            if cycle == 0:
                before, processes = use(service.pids()), len(service.pids())
        after, left = use(service.pids()), len(service.pids())
        assert before is not None
    found = leaks(before, after)
    return {
        "passed": not found and left == processes,
        "cycles": cycles,
        "own_mb": [round(each.own / 1e6, 1) for each in (before, after)],
        "pss_mb": [round(each.pss / 1e6, 1) for each in (before, after)],
        "processes": [processes, left],
        "leaks": found,
    }
