"""A whole resnetd on a data directory of its own, whose parts may be killed, stopped and cut off one by one.

The embedded Redis, one or two HTTP processes on one address, one or two workers with toy jobs; no fleet: nothing here
classifies. What dies is started again, as `resnetd up` does it but without its growing pauses.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx
from redis import Redis, RedisError

from resnetd import embedded_redis
from store import redis_account
from store.datasets import Dataset, ImageSummary, Report, Source, SplitSummary
from store.layout import Layout
from store.process import child_environment

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
DATASET = "ds_toy"
PAUSE_SECONDS = 0.5
TICK_SECONDS = 0.05
START_SECONDS, STOP_SECONDS = 180.0, 30.0
#: A second user beside resnetd's own, who sees all keys.
_ADMIN = ["--user", "tests", "on", "nopass", "~*", "&*", "+@all"]
_ATTACHED = (
    "import os, sys; from store.process import attach_to_parent; attach_to_parent(); "
    "os.execv(sys.argv[1], sys.argv[1:])"
)


@dataclass
class Part:
    """A process that is kept running; `held` = not started again for now."""

    name: str
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    pass_fds: Sequence[int] = ()
    held: bool = False
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0
    resume: float = 0.0


class Stack:
    def __init__(
        self,
        folder: Path,
        *,
        apis: int = 1,
        workers: int = 1,
        lease_ms: int | None = None,
        environment: dict[str, str] | None = None,
        api_redis: str | None = None,
        worker_redis: str | None = None,
    ) -> None:
        """`environment` goes to the workers and the HTTP processes; `…_redis` are URLs of proxies before Redis."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.layout = Layout(folder / "var").create()
        self.redis_url = redis_account.url(self.layout)
        self.redis = Redis.from_url(
            f"unix://tests:any@{self.layout.redis_socket}", decode_responses=True, socket_timeout=5.0
        )
        self.ran, self.calls = self.layout.root / "ran.jsonl", folder / "calls.jsonl"
        self._log = (folder / "parts.log").open("ab")
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
        self.port = int(self._listener.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        shared = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("RESNETD_", "REDIS_"))},
            "PYTHONPATH": f"{HERE}:{ROOT}",
            "RESNETD_DATA": str(self.layout.root),
            **({"CHAOS_LEASE_MS": str(lease_ms)} if lease_ms else {}),
            **(environment or {}),
        }
        program = [sys.executable, str(HERE / "chaos_part.py")]
        server = [*embedded_redis.command(self.layout), *_ADMIN]
        self.parts = [Part("redis", [sys.executable, "-c", _ATTACHED, *server], shared)]
        api = {**shared, "REDIS_URL": api_redis or self.redis_url}
        fd = self._listener.fileno()
        self.parts += [Part(f"api{n}", [*program, "app", "--fd", str(fd)], api, [fd]) for n in range(apis)]
        for n in range(workers):
            # A device of its own is a slot of its own: two workers stand for two machines that share a disk.
            worker = {
                **shared,
                "REDIS_URL": worker_redis or self.redis_url,
                "RESNETD_DEVICE": f"cpu:{n}",
                "CHAOS_CALLS": str(self.calls),
            }
            self.parts.append(Part(f"worker{n}", [*program, "worker"], worker))
        self._stopping = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="keeper", daemon=True)

    # Life ...

    @staticmethod
    def redis_in(folder: Path) -> Path:
        """The socket of the Redis of a stack in `folder`, before there is one: for a proxy in front of it."""
        return Layout(folder / "var").create().redis_socket

    @staticmethod
    def redis_url_by(port: int, folder: Path) -> str:
        """The URL of that Redis by way of a proxy."""
        return f"redis://{redis_account.USER}:{redis_account.password(Layout(folder / 'var'))}@127.0.0.1:{port}/0"

    def start(self) -> "Stack":
        _toy_dataset(self.layout)
        self._keeper.start()
        self.wait_for_redis()
        self.wait_for_api()
        return self

    def wait_for_redis(self, seconds: float = START_SECONDS) -> None:
        until = time.monotonic() + seconds
        while True:
            with contextlib.suppress(RedisError, OSError):
                self.redis.ping()
                return
            if time.monotonic() > until:
                raise TimeoutError(f"redis-server does not answer; see {self.folder / 'parts.log'}")
            time.sleep(TICK_SECONDS)

    def wait_for_api(self, seconds: float = START_SECONDS) -> None:
        until = time.monotonic() + seconds
        while True:
            with contextlib.suppress(httpx.HTTPError):
                httpx.get(f"{self.url}/livez", timeout=2.0, trust_env=False).raise_for_status()
                return
            if time.monotonic() > until:
                raise TimeoutError(f"the HTTP process does not answer; see {self.folder / 'parts.log'}")
            time.sleep(TICK_SECONDS)

    def stop(self) -> None:
        """End everything, workers first and in good order; raises where a process is left."""
        self._stopping.set()
        self._keeper.join()
        self.redis.close()
        self._listener.close()
        self._log.close()
        left = [line for _, line in processes(self.layout.root)]
        if left:
            raise AssertionError(f"processes are left: {left}")

    @contextlib.contextmanager
    def running(self) -> Iterator["Stack"]:
        self.start()
        try:
            yield self
        finally:
            self.stop()

    def _keep(self) -> None:
        """One thread starts every part: the kernel ties their lives to it."""
        while not self._stopping.wait(TICK_SECONDS):
            for part in self.parts:
                self._watch(part)
        leaning, foundation = self.parts[1:], self.parts[:1]
        for group in (leaning, foundation):
            for part in group:
                if part.process is not None:
                    part.process.send_signal(signal.SIGCONT)
                    part.process.terminate()
            until = time.monotonic() + STOP_SECONDS
            for part in group:
                if part.process is not None:
                    try:
                        part.process.wait(max(0.1, until - time.monotonic()))
                    except subprocess.TimeoutExpired:
                        part.process.kill()
                        part.process.wait()

    def _watch(self, part: Part) -> None:
        moment = time.monotonic()
        if part.process is not None and part.process.poll() is not None:
            part.process, part.resume = None, moment + PAUSE_SECONDS
        if part.process is None and not part.held and moment >= part.resume:
            part.process = subprocess.Popen(
                part.command,
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                cwd=ROOT,
                env={**child_environment(), **part.environment, "RESNETD_PARENT_PID": str(os.getpid())},
                pass_fds=part.pass_fds,
                process_group=0,
            )
            part.starts += 1

    # Harm ...

    def part(self, name: str) -> Part:
        return next(part for part in self.parts if part.name == name)

    def pid(self, name: str) -> int | None:
        process = self.part(name).process
        return process.pid if process is not None and process.poll() is None else None

    def pool(self, worker: str = "worker0") -> list[int]:
        """The pool processes of a worker."""
        main = self.pid(worker)
        return children(main) if main is not None else []

    def trainers(self) -> dict[int, str]:
        """The jobs' own processes: pid → job id."""
        found = {}
        for pid, line in processes(self.layout.root):
            words = line.split()
            if "toy_trainer" in words:
                found[pid] = Path(words[words.index("toy_trainer") + 1]).name
        return found


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def processes(place: Path) -> list[tuple[int, str]]:
    """(pid, command line) of every process that has `place` in its arguments or its environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            arguments, variables = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
        except OSError:
            continue  # it has just ended
        if os.fsencode(place) in arguments + variables:
            found.append((int(entry.name), arguments.replace(bytes(1), b" ").decode(errors="replace").strip()))
    return found


def strike(pid: int | None, number: signal.Signals = signal.SIGKILL) -> bool:
    """Send a signal; False where nobody is there to receive it."""
    if pid is None:
        return False
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def _toy_dataset(layout: Layout) -> None:
    folder = layout.dataset(DATASET)
    folder.mkdir(exist_ok=True)
    Dataset(
        id=DATASET,
        name="toy",
        digest="sha256:" + "0" * 64,
        created_at=datetime.now(UTC),
        source=Source(format="image_folder"),
        classes=("a", "b"),
        splits={"train": SplitSummary(images=2, per_class=(1, 1))},
        image=ImageSummary(sizes={"28x28": 2}, modes={"L": 2}, uniform=True, height=28, width=28, channels=1),
        report=Report(images=2),
    ).write(folder)
