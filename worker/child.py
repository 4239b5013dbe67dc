"""The job's own process: started in its own group, read line by line, and ended for certain."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import orjson

from jobs.answers import Claim
from jobs.model import Kind
from store.layout import Layout
from store.process import child_environment
from worker.job_environment import computing_environment

PROGRAMS = {
    Kind.IMPORT: "worker.importer",
    Kind.TRAIN: "worker.trainer",
    Kind.EVALUATE: "worker.evaluator",
    Kind.EXPORT: "worker.exporter",
    Kind.ADOPT: "worker.adopter",
}
STDERR_KEPT = 64 * 1024


def _environment(kind: Kind) -> dict[str, str]:
    return computing_environment() if kind in (Kind.TRAIN, Kind.EVALUATE) else child_environment()


def _traced(claim: Claim) -> dict[str, str]:
    """The trace of the request that asked for the job, as OpenTelemetry hands it to processes."""
    return {"TRACEPARENT": claim.traceparent} if claim.traceparent else {}


class Child:
    """`python -m worker.<kind> RUN_DIR --claim N`, its lines as they come.

    It inherits `slot`, the lane's open lock file: the device is taken until the last of its users is gone.
    """

    def __init__(self, claim: Claim, layout: Layout, device: str, *, slot: int) -> None:
        folder = layout.job(claim.job_id)
        self.stderr_path = folder / f"claim-{claim.number}" / "stderr.log"
        command = [sys.executable, "-m", PROGRAMS[claim.kind], str(folder), "--claim", str(claim.number)]
        command += ["--data", str(layout.root), "--device", device]
        with self.stderr_path.open("wb") as stderr:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                process_group=0,
                pass_fds=[slot],
                env={**_environment(claim.kind), **_traced(claim)},
            )
        self._heard = time.monotonic()
        self._lines: SimpleQueue[tuple[str, dict[str, Any]] | None] = SimpleQueue()
        self._reader = threading.Thread(target=self._read, name="job-lines", daemon=True)
        try:
            self._reader.start()
        except RuntimeError:  # no thread is to be had; nobody would know of the process
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            raise

    def _read(self) -> None:
        if self.process.stdout is None:  # it was opened as a pipe
            return
        with self.process.stdout as stdout:
            for raw in stdout:
                self._heard = time.monotonic()
                with contextlib.suppress(orjson.JSONDecodeError, KeyError, TypeError):
                    line = orjson.loads(raw)
                    self._lines.put((str(line["type"]), dict(line["data"])))
        self._lines.put(None)  # wakes whoever waits for a line: there will be none

    def lines(self, *, wait: float) -> Iterator[tuple[str, dict[str, Any]]]:
        """What has been said since; waits up to `wait` seconds for a first line."""
        try:
            line = self._lines.get(timeout=wait)
            while True:
                if line is not None:
                    yield line
                line = self._lines.get_nowait()
        except Empty:
            return

    @property
    def silent_seconds(self) -> float:
        """How long nothing has been heard of the process."""
        return time.monotonic() - self._heard

    def forgive_silence(self) -> None:
        """Count its silence from now on."""
        self._heard = time.monotonic()

    def ended(self) -> bool:
        """True once the process has exited and what it said has been read into `lines`."""
        if not self._exited():
            return False
        self._reader.join(timeout=1.0)
        return True

    def terminate(self) -> None:
        """Ask the group to stop in good order."""
        self._signal(signal.SIGTERM)

    def dump_stacks(self) -> None:
        """Have the process itself, and no other of its group, write all its threads' stacks to standard error."""
        if self.process.returncode is None:
            os.kill(self.process.pid, signal.SIGUSR1)

    def kill(self) -> int:
        """End whatever is left of the group, wait until it is gone, and return the leader's exit status."""
        self._signal(signal.SIGKILL)
        code = self.process.wait()
        self._reader.join()
        return code

    def _exited(self) -> bool:
        """Whether the leader has exited, without collecting it: until then the group's number stays ours."""
        if self.process.returncode is not None:
            return True
        return os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _signal(self, number: int) -> None:
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)

    def stderr_tail(self) -> str:
        return tail(self.stderr_path)


def tail(path: Path) -> str:
    """The last 64 KiB of a log, as text."""
    with path.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - STDERR_KEPT))
        return file.read().decode(errors="replace")
