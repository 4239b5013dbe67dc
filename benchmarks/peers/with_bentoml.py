"""`bentoml serve benchmarks.peers.with_bentoml:Edge`: BentoML's adaptive batching, which needs a service of its own.

A batchable method takes lists, also from its clients. Who sends one raw image goes through a service that depends on
it, as BentoML's documentation of batching has it. That one's client opens another session after every 100 requests
unless told otherwise, and closes the one before under those that it has under way: they end with status 500.
"""

from pathlib import Path
from typing import Any

import bentoml
from starlette.responses import JSONResponse

from benchmarks.peers import task as tasks

TASK = tasks.told()
_SERVICE = {"traffic": {"timeout": 600}, "logging": {"access": {"enabled": False}}}
_ONE_SESSION = {"max_requests": 1_000_000_000, "max_age": 1_000_000.0}


@bentoml.service(workers=TASK.workers, runner_connection=_ONE_SESSION, **_SERVICE)
class Model:
    def __init__(self) -> None:
        self._work = tasks.load(TASK)

    @bentoml.api(batchable=True, max_batch_size=max(2, TASK.max_batch), max_latency_ms=600_000)
    def classify(self, files: list[bytes]) -> list[dict[str, Any]]:
        return self._work(files)


@bentoml.service(**_SERVICE)
class Edge:
    model = bentoml.depends(Model)

    @bentoml.api(route="/classify")
    async def classify(self, image: Path, /) -> Any:  # noqa: ANN401 - BentoML makes a schema of other types
        answers = await self.model.to_async.classify([image.read_bytes()])  # noqa: ASYNC240 - it was just written
        return JSONResponse(answers[0])  # a dictionary would be sent in chunks
