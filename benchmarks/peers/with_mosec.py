"""`python -m benchmarks.peers.with_mosec --address 127.0.0.1 --port N`: mosec, one stage with its batching."""

from mosec import Server, Worker

from benchmarks.peers import task as tasks

TASK = tasks.told()


class Classify(Worker):
    def __init__(self) -> None:
        super().__init__()
        self._work = tasks.load(TASK)

    def deserialize(self, data: bytes) -> bytes:
        return data

    def forward(self, data: bytes | list[bytes]) -> tasks.Answer | list[tasks.Answer]:
        return self._work(data) if isinstance(data, list) else self._work([data])[0]  # `max_batch` 1: without a list


if __name__ == "__main__":
    server = Server()
    server.append_worker(
        Classify,
        num=TASK.workers,
        max_batch_size=TASK.max_batch,
        max_wait_time=TASK.wait_ms,
        timeout=600,
        route="/classify",
    )
    server.run()
