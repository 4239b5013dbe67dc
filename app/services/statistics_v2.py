"""What was counted of model versions, in the shape of Triton's statistics extension."""

import asyncio
import math
import time
from dataclasses import dataclass
from typing import Any

import anyio.to_thread

from app.inference.client import Engines
from app.metrics import Counted, Metrics

_FRESH_SECONDS = 0.5  # for which what was found is told to all who ask: to tell its figures, each engine computes
_NOTHING = Counted(answered=0, failed=0, images=0, seconds={}, last=0.0)


@dataclass(frozen=True)
class _Found:
    """`counted` by all HTTP processes since the server's start, `batches` by each engine that answers since its own."""

    counted: dict[tuple[str, str], Counted]
    batches: dict[tuple[str, str], int]


class Statistics:
    def __init__(self, engines: Engines) -> None:
        self._engines = engines
        self._looking: asyncio.Task[_Found] | None = None
        self._began = -math.inf

    async def of(self, versions: list[tuple[str, int]], metrics: Metrics) -> dict[str, Any]:
        """An entry for each version; of what nobody asked for, with zeros."""
        now = time.monotonic()
        if self._looking is None or (self._looking.done() and now - self._began > _FRESH_SECONDS):
            self._began, self._looking = now, asyncio.create_task(self._look(metrics), name="statistics")
        found = await asyncio.shield(self._looking)  # it is others' too
        entries = []
        for name, version in versions:
            names = name, str(version)
            entries.append(entry(*names, found.counted.get(names, _NOTHING), batches=found.batches.get(names, 0)))
        return {"model_stats": entries}

    async def _look(self, metrics: Metrics) -> _Found:
        counted, engines = await asyncio.gather(anyio.to_thread.run_sync(metrics.of_versions), self._engines.figures())
        return _Found(counted, {(each.model, str(each.version)): sum(each.batches.values()) for each in engines})


def entry(name: str, version: str, counted: Counted, *, batches: int) -> dict[str, Any]:
    """A version's statistics. What is not measured is 0: how long failed requests took, and `compute_output`."""
    stages = {stage: counted.seconds.get(stage, (0, 0.0)) for stage in ("queue", "decode", "compute")}
    return {
        "name": name,
        "version": version,
        "last_inference": round(counted.last * 1000),
        "inference_count": counted.images,
        "execution_count": batches,
        "inference_stats": {
            "success": _duration(counted.answered, sum(seconds for _, seconds in stages.values())),
            "fail": _duration(counted.failed, 0.0),
            "queue": _duration(*stages["queue"]),
            "compute_input": _duration(*stages["decode"]),
            "compute_infer": _duration(*stages["compute"]),
            "compute_output": _duration(0, 0.0),
        },
        "batch_stats": [],
    }


def _duration(count: int, seconds: float) -> dict[str, int]:
    return {"count": count, "ns": round(seconds * 1e9)}
