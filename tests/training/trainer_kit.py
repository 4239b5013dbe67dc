"""Trainings as processes on images of squares, for tests that stop, kill and order them."""

import json
import signal
import subprocess
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import job_processes
from job_processes import lines, started
from squares import squares

from store.files import write_atomic

SPLITS = {"train": squares(210, seed=0), "test": squares(60, seed=1)}


def trainer(run_dir: Path, *arguments: str) -> AbstractContextManager[subprocess.Popen[bytes]]:
    return started("worker.trainer", run_dir, *arguments)


def finish(run_dir: Path, *arguments: str) -> tuple[int, list[dict[str, Any]]]:
    return job_processes.finish("worker.trainer", run_dir, *arguments)


def after_checkpoints(process: subprocess.Popen[bytes], count: int, send: signal.Signals) -> list[dict[str, Any]]:
    """Send a signal once that many checkpoints are written; everything that was said until the end."""
    said = []
    for line in lines(process):
        said.append(line)
        if line["type"] == "checkpoint":
            count -= 1
            if count == 0:
                process.send_signal(send)
    return said


def order(claim_dir: Path, **orders: Any) -> None:
    claim_dir.mkdir(exist_ok=True)
    write_atomic(claim_dir / "orders.json", json.dumps(orders).encode())
