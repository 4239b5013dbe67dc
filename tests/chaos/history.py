"""What clients and the nemesis did, as it happened: one JSON object a line, appended by any process."""

import os
import threading
import time
from pathlib import Path
from typing import Any

import orjson

Line = dict[str, Any]


def now() -> float:
    """Milliseconds of this machine's clock, which Redis on the same machine shares."""
    return time.time() * 1000


class History:
    """`invoke` what is about to be tried, then `ok`, `fail` (it had no effect) or `info` (nobody knows)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
        self._lock = threading.Lock()

    def add(self, type: str, op: str, **more: Any) -> None:  # noqa: A002 - the line's own name for it
        with self._lock:
            append(self._fd, {"t": now(), "type": type, "op": op, **more})

    def close(self) -> None:
        os.close(self._fd)


def append(fd: int, line: Line) -> None:
    """One write, whole: O_APPEND keeps the lines of several processes apart."""
    os.write(fd, orjson.dumps(line) + b"\n")


def read(path: Path) -> list[Line]:
    """Every line; the last may be half written by a process that was killed."""
    if not path.exists():
        return []
    found = []
    for raw in path.read_bytes().splitlines():
        try:
            found.append(orjson.loads(raw))
        except orjson.JSONDecodeError:
            continue
    return found
