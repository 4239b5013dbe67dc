"""`python -m benchmarks.peers.with_ray FOLDER`: Ray Serve with `serve.batch`, its cluster in FOLDER and on loopback."""

import signal
import sys
import threading

import ray
from ray import serve
from ray.serve.config import HTTPOptions
from ray.serve.schema import LoggingConfig
from starlette.requests import Request
from starlette.responses import JSONResponse

from benchmarks.peers import task as tasks

TASK = tasks.told()
_GPU = {"num_gpus": 0.01} if TASK.device == "cuda" else {}  # a part of it: a replica without one would not see it


@serve.deployment(
    num_replicas=TASK.workers,
    ray_actor_options={"num_cpus": TASK.threads, **_GPU},  # Ray gives a replica as many threads
    max_ongoing_requests=128,  # of 5, as it comes, no batch would ever be full
)
class Classify:
    def __init__(self) -> None:
        self._work = tasks.load(TASK)

    @serve.batch(max_batch_size=TASK.max_batch, batch_wait_timeout_s=TASK.wait)
    async def _batch(self, files: list[bytes]) -> list[tasks.Answer]:
        return self._work(files)

    async def __call__(self, request: Request) -> JSONResponse:
        return JSONResponse(await self._batch(await request.body()))  # a dictionary would be sent in chunks


def main() -> None:
    stopped = threading.Event()
    ray.init(
        num_cpus=TASK.workers * TASK.threads,
        num_gpus=1 if TASK.device == "cuda" else None,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=100 * 2**20,
        _temp_dir=sys.argv[1],
        _node_ip_address="127.0.0.1",
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    serve.start(
        http_options=HTTPOptions(host="127.0.0.1", port=TASK.port),
        logging_config=LoggingConfig(enable_access_log=False),
    )
    serve.run(Classify.bind(), route_prefix="/classify")
    stopped.wait()
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
