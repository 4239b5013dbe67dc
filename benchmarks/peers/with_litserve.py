"""`python -m benchmarks.peers.with_litserve`: LitServe with its batching, a raw body as FastAPI takes one."""

from typing import Annotated

import litserve
from fastapi import Body

from benchmarks.peers import task as tasks

TASK = tasks.told()


class Api(litserve.LitAPI):
    def setup(self, device: str) -> None:  # noqa: ARG002 - the task names it
        self._work = tasks.load(TASK)

    def decode_request(self, request: Annotated[bytes, Body(media_type="image/jpeg")]) -> bytes:
        return request

    def batch(self, inputs: list[bytes]) -> list[bytes]:
        return list(inputs)

    def predict(self, x: bytes | list[bytes]) -> tasks.Answer | list[tasks.Answer]:
        return self._work(x) if isinstance(x, list) else self._work([x])[0]  # `max_batch` 1: without a list

    def unbatch(self, output: list[tasks.Answer]) -> list[tasks.Answer]:
        return output

    def encode_response(self, output: tasks.Answer) -> tasks.Answer:
        return output


if __name__ == "__main__":
    api = Api(max_batch_size=TASK.max_batch, batch_timeout=TASK.wait, api_path="/classify")
    server = litserve.LitServer(
        api,
        accelerator=TASK.device,
        devices=1,
        workers_per_device=TASK.workers,
        timeout=600,
        fast_queue=TASK.runtime is not None,  # off as it comes, faster where it is on
    )
    server.run(host="127.0.0.1", port=TASK.port, log_level="warning", generate_client_file=False)
