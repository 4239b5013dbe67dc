"""The planner's own process: started, listened to, and ended for certain."""

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import IO, Any

import orjson

from worker.job_environment import computing_environment

PROGRAM = "worker.planner"
LOOK_SECONDS = 0.25  # between two looks whether it is to be ended
_STDERR_KEPT = 4000


@dataclass
class Said:
    """The last line of each type that a planner said, and what it wrote to standard error at the end.

    `cut` is why it was ended before it was done, `code` its exit status.
    """

    plan: dict[str, Any] | None = None
    measured: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    cut: str | None = None
    code: int = 0
    stderr: str = ""

    def hear(self, raw: bytes) -> None:
        with contextlib.suppress(orjson.JSONDecodeError, KeyError, TypeError):
            line = orjson.loads(raw)
            if line["type"] in ("plan", "measured", "error"):
                setattr(self, line["type"], dict(line["data"]))


def run(arguments: list[str], request: bytes, *, slot: int | None, cut: Callable[[], str | None]) -> Said:
    """The planner's program, from its start to its end. `cut` is asked four times a second whether, and why, it is
    to be ended now. It inherits `slot`, the device's open lock file: the device is taken until the process is gone.
    """
    said = Said()
    with tempfile.TemporaryFile() as stderr, tempfile.TemporaryFile() as stdin:
        stdin.write(request)
        stdin.seek(0)
        process = subprocess.Popen(
            [sys.executable, "-m", PROGRAM, *arguments],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=stderr,
            process_group=0,
            pass_fds=[] if slot is None else [slot],
            env=computing_environment(),
        )
        try:
            if process.stdout is not None:  # it was opened as a pipe
                with process.stdout as stdout:
                    _listen(stdout, said, cut)
        finally:
            if said.cut is None:
                _await_exit(process.pid)  # it has closed its standard output
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            said.code = process.wait()
        stderr.seek(max(0, stderr.seek(0, os.SEEK_END) - _STDERR_KEPT))
        said.stderr = stderr.read().decode(errors="replace")
    return said


def _await_exit(pid: int) -> None:
    """For a second at most; the process is not collected yet, so its group's number is no other's meanwhile."""
    fd = os.pidfd_open(pid)
    try:
        wait([fd], 1.0)
    finally:
        os.close(fd)


def _listen(stdout: IO[bytes], said: Said, cut: Callable[[], str | None]) -> None:
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(stdout, selectors.EVENT_READ)
        while said.cut is None:
            if selector.select(LOOK_SECONDS):
                piece = os.read(stdout.fileno(), 1 << 16)
                if not piece:
                    return
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    said.hear(line)
            said.cut = cut()
