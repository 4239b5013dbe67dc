"""What was counted of model versions, in the shape of Triton's statistics extension."""

import asyncio
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import anyio.to_thread

from app.inference.client import Engines
from app.metrics import Metrics
from app.version_metrics import Counted

_FRESH_SECONDS = 0.5  # for which what was found is told to all who ask: to tell its figures, each engine computes
_NOTHING = Counted(answered=0, failed=0, failed_seconds=0.0, images=0, seconds={}, last=0.0)


@dataclass(frozen=True)
class _Found:
    """Since the server's start: `counted` by all HTTP processes, `batches` of each size by engines.

    `complete`: what is not among `counted` was asked by nobody; else its figures may have been given up.
    """

    counted: dict[tuple[str, str], Counted]
    complete: bool
    batches: dict[tuple[str, str], Mapping[int, int]]


class Statistics:
    def __init__(self, engines: Engines) -> None:
        self._engines = engines
        self._looking: asyncio.Task[_Found] | None = None
        self._began = -math.inf

    async def of(self, versions: list[tuple[str, int]], metrics: Metrics) -> dict[str, Any]:
        """An entry for each version: of what nobody asked for with zeros, of what is not known any more none."""
        now = time.monotonic()
        if self._looking is None or (self._looking.done() and now - self._began > _FRESH_SECONDS):
            self._began, self._looking = now, asyncio.create_task(self._look(metrics), name="statistics")
        found = await asyncio.shield(self._looking)  # it is others' too
        keys = [(name, str(version)) for name, version in versions]
        known = [key for key in keys if found.complete or key in found.counted]
        entries = [entry(*key, found.counted.get(key, _NOTHING), batches=found.batches.get(key, {})) for key in known]
        return {"model_stats": entries}

    async def _look(self, metrics: Metrics) -> _Found:
        counting = anyio.to_thread.run_sync(metrics.versions.of_versions)
        (counted, complete), engines = await asyncio.gather(counting, self._engines.figures())
        return _Found(counted, complete, await anyio.to_thread.run_sync(metrics.batches.total, engines))


def entry(name: str, version: str, counted: Counted, *, batches: Mapping[int, int]) -> dict[str, Any]:
    """A version's statistics; `batches`: how many there were of each size.

    What is not measured is 0: how long batches of one size took, and `compute_output`. No answer comes from a cache.
    """
    stages = {stage: counted.seconds.get(stage, (0, 0.0)) for stage in ("queue", "decode", "compute")}
    nothing = _duration(0, 0.0)
    sizes = [
        {
            "batch_size": size,
            "compute_input": nothing,
            "compute_infer": _duration(count, 0.0),
            "compute_output": nothing,
        }
        for size, count in sorted(batches.items())
    ]
    return {
        "name": name,
        "version": version,
        "last_inference": round(counted.last * 1000),
        "inference_count": counted.images,
        "execution_count": sum(batches.values()),
        "inference_stats": {
            "success": _duration(counted.answered, sum(seconds for _, seconds in stages.values())),
            "fail": _duration(counted.failed, counted.failed_seconds),
            "queue": _duration(*stages["queue"]),
            "compute_input": _duration(*stages["decode"]),
            "compute_infer": _duration(*stages["compute"]),
            "compute_output": nothing,
            "cache_hit": nothing,
            "cache_miss": nothing,
        },
        "batch_stats": sizes,
    }


def _duration(count: int, seconds: float) -> dict[str, int]:
    return {"count": count, "ns": round(seconds * 1e9)}
