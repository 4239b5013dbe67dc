"""A job's process as its supervisor sees it: lines, exit code, files."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def started(program: str, run_dir: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """One thread: the tests run beside others, and the same thread count is a condition of equal bits."""
    process = subprocess.Popen(
        [sys.executable, "-m", program, str(run_dir), "--device", "cpu", *arguments],
        stdout=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def lines(process: subprocess.Popen[bytes]) -> Iterator[dict[str, Any]]:
    assert process.stdout is not None
    for line in process.stdout:
        yield json.loads(line)


def finish(program: str, run_dir: Path, *arguments: str) -> tuple[int, list[dict[str, Any]]]:
    """The exit code and everything that it said."""
    with started(program, run_dir, *arguments) as process:
        said = list(lines(process))
        return process.wait(), said


def of(said: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [line["data"] for line in said if line["type"] == kind]
