"""Programs of this project, run by tests as a user runs them."""

import contextlib
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from redis import RedisError
from waiting import wait_for

from jobs.redis import connect
from store import redis_account
from store.layout import Layout

RESNETD = str(Path(sys.executable).with_name("resnetd"))
#: Arguments that give the embedded Redis a second user, who may do everything: tests empty it and look around in it.
REDIS_ADMIN = ["--user", "tests", "on", "nopass", "~*", "&*", "+@all"]
READY = "resnetd is ready at "
START_SECONDS, STOP_SECONDS = 60.0, 15.0


def redis_admin_url(layout: Layout) -> str:
    """Where a Redis that was started with REDIS_ADMIN takes commands that resnetd's own user may not give."""
    return f"unix://tests:any@{layout.redis_socket}"


def wait_for_redis(server: "subprocess.Popen[bytes]", layout: Layout) -> None:
    """Until a redis-server that was just started answers resnetd's own user."""

    def answers() -> bool:
        assert server.poll() is None, "redis-server did not start"
        with contextlib.suppress(RedisError):
            return bool(client.ping())
        return False

    with contextlib.closing(connect(redis_account.url(layout))) as client:
        wait_for(answers)


@contextlib.contextmanager
def own_port() -> Iterator[int]:
    """A port that nobody else is given meanwhile: bound, and as nobody listens there, a server may bind it too."""
    with socket.socket() as holding:
        holding.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holding.bind(("127.0.0.1", 0))
        yield holding.getsockname()[1]


def environment(**more: str) -> dict[str, str]:
    """This process's environment without anybody's settings of resnetd, and with `more`.

    One thread for each computing process: tests run beside other things, and threads that wait for each other on a
    crowded core are many times slower than one. Engines serve with the float32 network and measure no runtimes.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RESNETD_", "REDIS_"))}
    return {**kept, "OMP_NUM_THREADS": "1", "RESNETD_RUNTIME": "eager", **more}


def processes_that_name(place: Path) -> list[str]:
    """The command lines of all processes that have `place` in their arguments or in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            arguments, variables = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
        except OSError:
            continue  # it has just ended
        if os.fsencode(place) in arguments + variables:
            found.append(f"{entry.name}: {arguments.replace(bytes(1), b' ').decode()}")
    return found


class Running:
    """One started program, its standard output by the line, its standard error in a file."""

    def __init__(self, command: list[str], *, log: Path, env: dict[str, str]) -> None:
        self.log = log
        with log.open("ab") as stderr:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=env)
        self._lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def line_with(self, beginning: str, *, seconds: float = START_SECONDS) -> str:
        """The next line that begins so. Fails, with the end of the log, when it does not come."""
        until = time.monotonic() + seconds
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                line = None
            assert line is not None, f"«{beginning}» was not said:\n{self.log.read_text()[-4000:]}"
            if line.startswith(beginning):
                return line

    def stop(self, *, seconds: float = STOP_SECONDS, by: signal.Signals = signal.SIGTERM) -> float:
        """Send the signal; how long it took. Fails when it takes longer than `seconds`."""
        began = time.monotonic()
        if self.process.poll() is None:
            self.process.send_signal(by)
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"not stopped after {seconds} s:\n{self.log.read_text()[-4000:]}") from None
        return time.monotonic() - began


def run_up(data: Path, *, log: Path) -> tuple[Running, str]:
    """`resnetd up` on a free port, ready; and its address."""
    command = [RESNETD, "up", "--data", str(data), "--port", "0", "--device", "cpu"]
    running = Running(command, log=log, env=environment())
    try:
        return running, running.line_with(READY).removeprefix(READY).split()[0]
    except BaseException:
        running.stop()
        raise
