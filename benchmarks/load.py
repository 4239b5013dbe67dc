"""A closed-loop load generator: so many connections, each sends its next request when its last one is answered.

`python -m benchmarks.load URL --connections 32 --seconds 8 FILE…` posts the files in turn, raw, over kept-alive
connections, and prints one JSON object. Raw sockets and prebuilt requests: it takes a tenth of a millisecond of CPU a
request, which on a small machine the server would otherwise miss.
"""

import argparse
import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

import uvloop

from benchmarks.soak.http_load import BROKEN, Connection

_WARM_UP = 2.0  # seconds that are not counted


class Load:
    """What came back in the time that counts: seconds of each answer with status 200, and how many others."""

    def __init__(self, url: str, files: list[Path], *, content_type: str = "image/jpeg") -> None:
        self._target = urlsplit(url)
        head = (
            f"POST {self._target.path}{'?' + self._target.query if self._target.query else ''} HTTP/1.1\r\n"
            f"Host: {self._target.netloc}\r\nContent-Type: {content_type}\r\nContent-Length: "
        )
        bodies = [file.read_bytes() for file in files]
        requests = [f"{head}{len(body)}\r\n\r\n".encode() + body for body in bodies]
        self._requests: Iterator[bytes] = itertools.cycle(requests)
        self.seconds: list[float] = []
        self.others: Counter[str] = Counter()

    async def run(self, *, connections: int, seconds: float) -> dict[str, object]:
        begin = time.perf_counter() + _WARM_UP
        end = begin + seconds
        await asyncio.gather(*(self._connection(begin, end) for _ in range(connections)))
        times = sorted(self.seconds)
        return {
            "connections": connections,
            "images_per_second": round(len(times) / seconds, 1),
            "p50_ms": _percentile(times, 0.5),
            "p99_ms": _percentile(times, 0.99),
            "answers": len(times),
            "others": dict(self.others),
        }

    async def _connection(self, begin: float, end: float) -> None:
        connection = Connection((self._target.hostname or "", self._target.port or 80))
        while time.perf_counter() < end:
            answer = await connection.ask(next(self._requests))
            if not begin <= time.perf_counter() < end:
                continue
            if answer.status == HTTPStatus.OK:
                self.seconds.append(answer.seconds)
                continue
            self.others[str(answer.status or "connection")] += 1
            if answer.status == BROKEN:
                await asyncio.sleep(0.05)  # nobody may be there
        connection.close()


def _percentile(times: list[float], share: float) -> float | None:
    """In ms; the nearest rank."""
    return round(times[min(int(share * len(times)), len(times) - 1)] * 1000, 2) if times else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url")
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=8.0)
    asked = parser.parse_args()
    load = Load(asked.url, asked.files).run(connections=asked.connections, seconds=asked.seconds)
    print(json.dumps(uvloop.run(load)))


if __name__ == "__main__":
    main()
