"""Each peer as a running server of a task."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.peers.environment import PYTHON, variables
from benchmarks.peers.task import Task
from benchmarks.running import answering

_LOOPBACK = "127.0.0.1"


def _litserve(_task: Task, _place: Path) -> list[str]:
    return ["-m", "benchmarks.peers.with_litserve"]


def _mosec(task: Task, _place: Path) -> list[str]:
    options = ["--address", _LOOPBACK, "--port", str(task.port), "--timeout", "600000", "--log-level", "warning"]
    return ["-m", "benchmarks.peers.with_mosec", *options]


def _ray(_task: Task, place: Path) -> list[str]:
    return ["-m", "benchmarks.peers.with_ray", str(place / "r")]


def _bentoml(task: Task, _place: Path) -> list[str]:
    options = ["--host", _LOOPBACK, "--port", str(task.port), "--timeout", "600"]
    return ["-m", "bentoml", "serve", "benchmarks.peers.with_bentoml:Edge", *options]


PEERS: dict[str, Callable[[Task, Path], list[str]]] = {
    "litserve": _litserve,
    "bentoml": _bentoml,
    "ray": _ray,
    "mosec": _mosec,
}


@contextmanager
def serving(peer: str, task: Task, photo: Path, *, place: Path) -> Iterator[str]:
    """The peer's address, once it has answered the photograph. What it writes lies in `place`, its log too."""
    place.mkdir(parents=True, exist_ok=True)
    url = f"http://{_LOOPBACK}:{task.port}/classify"
    threads = {"OMP_NUM_THREADS": str(task.threads)} if task.runtime or task.workers > 1 else {}
    own = variables(**task.variables(), **threads, BENTOML_HOME=str(place / "bentoml"), TMPDIR=str(place))
    log = place / f"{peer}.log"
    with log.open("ab") as written:
        try:
            command = [str(PYTHON), *PEERS[peer](task, place)]
            with answering(command, url, photo, environment=own, log=written):
                yield url
        except RuntimeError as error:
            end = log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"{peer}: {error}; its log ends:\n{end}") from error
