"""A running `resnetd up` for measurements, and what its processes use."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx


class Stack:
    """`resnetd up` on its own data directory and a free port."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.url = ""
        self.log = data.parent / "up.log"
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> float:
        """Start everything; seconds until an engine has really answered."""
        began = time.monotonic()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [str(Path(sys.executable).with_name("resnetd")), "up", "--data", str(self.data), "--port", "0"],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        for line in self.process.stdout:
            if line.startswith("resnetd is ready at "):
                self.url = line.split()[4]
                break
        else:
            raise RuntimeError(f"resnetd up ended; see {self.log}")
        took = time.monotonic() - began
        threading.Thread(target=self.process.stdout.read, daemon=True).start()
        return took

    def stop(self) -> float:
        """SIGTERM; seconds until it has ended."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()
        return time.monotonic() - began

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=120)

    def processes(self, module: str) -> list[int]:
        """Pids of this stack's processes that run `module` (or are `redis-server`)."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                command = (entry / "cmdline").read_bytes().split(b"\0")
                environment = (entry / "environ").read_bytes()
            except OSError:
                continue
            mine = os.fsencode(self.data) in environment or any(os.fsencode(self.data) in part for part in command)
            runs = module.encode() in command or command[0].endswith(module.encode())
            if mine and runs:
                found.append(int(entry.name))
        return sorted(found)

    def main_process(self, module: str) -> int:
        return self.processes(module)[0]


def rss(pid: int) -> int:
    """Resident bytes of a process; 0 when it has gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


class PeakMemory(threading.Thread):
    """Samples the resident memory of a stack's processes of one kind until told to stop."""

    def __init__(self, stack: Stack, module: str) -> None:
        super().__init__(daemon=True)
        self._stack, self._module, self._stop_now = stack, module, threading.Event()
        self.peak = 0

    def run(self) -> None:
        while not self._stop_now.wait(0.05):
            self.peak = max(self.peak, sum(rss(pid) for pid in self._stack.processes(self._module)))

    def stop(self) -> int:
        self._stop_now.set()
        self.join()
        return self.peak


@contextmanager
def fresh_stack() -> Iterator[Stack]:
    with tempfile.TemporaryDirectory(prefix="resnetd-bench-") as folder:
        stack = Stack(Path(folder) / "var")
        try:
            yield stack
        finally:
            if stack.process and stack.process.poll() is None:
                stack.stop()
