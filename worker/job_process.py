"""What every job process does alike: speak JSON lines, stop on SIGTERM, die with its supervisor, end with a code.

A job's own module writes `sys.exit(run(main))`; `main` receives the `Stop` flag and raises what it has to say.
"""

import errno
import faulthandler
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

import orjson

from store.faults import point
from store.process import attach_to_parent

DONE = 0
STOPPED = 75  # SIGTERM came and what was reached is safe on disk
DISK_FULL = 77
REFUSED = 78  # the request or the data is at fault; trying again changes nothing

OUT_OF_MEMORY = {
    "code": "out_of_memory",
    "message": "there is too little memory",
    "hint": "Take a smaller batch_size or image_size, or give the machine more memory, then retry.",
}

# In the words of torch's CPU allocator, of CUDA, of cuBLAS and cuDNN, and of NCCL.
_NO_MEMORY = ("can't allocate memory", "out of memory", "STATUS_ALLOC_FAILED", "Failed to CUDA calloc")
_DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT)
_OOM_SCORE = 500  # of 1000; Redis and engines have 0

Type = Literal["progress", "epoch", "checkpoint", "evaluation", "warning", "log", "result", "error", "plan", "measured"]


class JobRefused(Exception):
    """The request or the data cannot give a result. `code` is for programs, `message` and `hint` for people."""

    def __init__(self, code: str, message: str, hint: str) -> None:
        super().__init__(message)
        self.code, self.message, self.hint = code, message, hint


class JobStopped(Exception):
    """SIGTERM was obeyed; raise it only after what was reached is safe on disk."""


class Stop:
    """Whether SIGTERM has come. The first one asks; the process ends at its next safe point."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def listen(self) -> "Stop":
        """Take SIGTERM from now on. Main thread only."""
        signal.signal(signal.SIGTERM, lambda _signal, _frame: self._event.set())
        return self

    @property
    def requested(self) -> bool:
        return self._event.is_set()

    def check(self) -> None:
        """Raise JobStopped where a stop was asked for: for places at which nothing needs saving first."""
        if self.requested:
            raise JobStopped


@dataclass
class _Lines:
    """Standard output as the channel of JSON lines; threads may share it."""

    out: BinaryIO | None = None
    errors_only: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def write(self, line: bytes) -> None:
        with self.lock:
            out = self.out or sys.stdout.buffer
            out.write(line)
            out.flush()

    def take_stdout(self) -> None:
        """Keep file descriptor 1 for JSON lines; whatever else prints lands on standard error."""
        sys.stdout.flush()
        self.out = os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)


_lines = _Lines()


def lines_out() -> int:
    """The file descriptor of the JSON lines, for a child that speaks in this process's place."""
    return (_lines.out or sys.stdout.buffer).fileno()


def hush() -> None:
    """From now on say errors only: another process speaks for both."""
    _lines.errors_only = True


def emit(type: Type, data: dict[str, Any]) -> None:  # noqa: A002 - the key's own name in the protocol
    """Say one thing to the supervisor. NumPy scalars and arrays are allowed; NaN and infinity become null."""
    if _lines.errors_only and type != "error":
        return
    line = orjson.dumps(
        {"type": type, "data": data},
        option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS | orjson.OPT_APPEND_NEWLINE,
    )
    _lines.write(line)
    if type == "result":
        point("job.result_said")


def run(main: Callable[[Stop], int | None]) -> int:
    """Run a job to its exit code. What `main` raises becomes an `error` line; an unknown exception is a crash (1).

    `main` may return the exit code of processes that did its work.
    """
    attach_to_parent()
    _go_first_where_memory_ends()
    faulthandler.register(signal.SIGUSR1, all_threads=True)  # asked for when nothing was said for too long
    _lines.take_stdout()
    stop = Stop().listen()
    try:
        return main(stop) or DONE
    except JobStopped:
        return STOPPED
    except JobRefused as refusal:
        emit("error", {"code": refusal.code, "message": refusal.message, "hint": refusal.hint})
        return REFUSED
    except Exception as error:
        traceback.print_exc()
        if isinstance(error, OSError) and error.errno in _DISK_FULL_ERRNOS:
            emit("error", {"code": "disk_full", "message": "the disk is full", "hint": "Free space, then retry."})
            return DISK_FULL
        if out_of_memory(error):
            emit("error", OUT_OF_MEMORY)
            return REFUSED
        return 1


def _go_first_where_memory_ends() -> None:
    """The kernel is to end a job rather than an engine or Redis: a job says so and keeps its checkpoint."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE))


def out_of_memory(error: Exception) -> bool:
    """Whether an exception says that there is too little memory, the machine's or the device's.

    torch, which is not imported here, has a class of its own for what its allocator on the device lacks. Its CPU
    allocator, CUDA itself and its libraries raise RuntimeError.
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(said in str(error) for said in _NO_MEMORY)
