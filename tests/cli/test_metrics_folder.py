"""Where HTTP processes count together, and what a server that was killed left of it."""

import errno
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from running import RESNETD, Running, environment

from resnetd import metrics_folder
from resnetd.errors import CannotStart
from resnetd.metrics_folder import counting
from store.layout import Layout

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
HOLD = """
import sys
from pathlib import Path
from resnetd import metrics_folder
from store.layout import Layout

metrics_folder._MEMORY = Path(sys.argv[1])
with metrics_folder.counting(Layout(Path(sys.argv[2]))) as variables:
    print(*variables.values(), flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in place of the machine's shared memory."""
    place = tmp_path / "memory"
    place.mkdir()
    monkeypatch.setattr(metrics_folder, "_MEMORY", place)
    return place


def holder(memory: Path, layout: Layout) -> tuple[subprocess.Popen[str], Path]:
    """Another server's process, and its folder."""
    command = [sys.executable, "-c", HOLD, str(memory), str(layout.root)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


@pytest.fixture
def two(memory: Path, layout: Layout) -> Iterator[list[tuple[subprocess.Popen[str], Path]]]:
    started = [holder(memory, layout) for _ in range(2)]
    yield started
    for process, _ in started:
        process.kill()
        process.communicate()


def test_it_is_in_memory_its_owners_alone_and_gone_at_the_end(memory: Path, layout: Layout) -> None:
    with counting(layout) as variables:
        folder = Path(variables[VARIABLE])
        assert folder.parent == memory
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "counter_1.db").touch()
    assert list(memory.iterdir()) == []


def test_without_memory_or_room_in_it_it_is_in_the_data_directory(
    memory: Path, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(metrics_folder, "_ROOM", sys.maxsize)
        with counting(layout) as variables:
            assert Path(variables[VARIABLE]).parent == layout.run
    memory.rmdir()
    with counting(layout) as variables:
        assert Path(variables[VARIABLE]).parent == layout.run
    assert list(layout.run.iterdir()) == []


def test_where_neither_takes_it_the_server_says_so(
    memory: Path, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(**_: object) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(metrics_folder.tempfile, "mkdtemp", full)
    with (
        pytest.raises(CannotStart, match=f"Neither {memory} nor {layout.run} .*No space left.*Make room"),
        counting(layout),
    ):
        pass


def test_what_a_killed_server_left_goes_and_what_a_living_one_has_stays(
    two: list[tuple[subprocess.Popen[str], Path]], layout: Layout
) -> None:
    (dead, left), (_, kept) = two
    (left / "counter_1.db").touch()
    old = layout.run / "metrics-of-an-earlier-version"
    old.mkdir()
    dead.kill()
    dead.wait()
    assert left.exists()
    with counting(layout):
        assert (left.exists(), old.exists(), kept.exists()) == (False, False, True)


def folder_of(data: Path) -> Path:
    """Where the HTTP process of the server on this data directory counts, once it runs."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        for place in Path("/proc").glob("[0-9]*/environ"):
            try:
                variables = dict(each.partition("=")[::2] for each in place.read_bytes().decode().split("\0"))
            except (OSError, UnicodeDecodeError):
                continue  # it has just ended
            if variables.get("RESNETD_DATA") == str(data) and VARIABLE in variables:
                return Path(variables[VARIABLE])
        time.sleep(0.05)
    raise AssertionError("no process counts")


def test_a_server_that_is_started_after_one_that_was_killed_sweeps_after_it(tmp_path: Path) -> None:
    data, log = tmp_path / "var", tmp_path / "serve.log"
    command = [RESNETD, "serve", "--data", str(data), "--port", "0", "--device", "cpu"]
    killed = Running(command, log=log, env=environment())
    left = folder_of(data)
    killed.process.kill()
    killed.process.wait()
    assert left.exists()
    second = Running(command, log=log, env=environment())
    try:
        until = time.monotonic() + 60
        while left.exists():
            assert time.monotonic() < until, log.read_text()[-4000:]
            time.sleep(0.05)
        while (own := folder_of(data)) == left:  # of a process of the first one, on its way out
            time.sleep(0.05)
        assert own.exists()
    finally:
        second.stop()
    assert not own.exists()
