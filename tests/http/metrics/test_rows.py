"""Rows of numbers that change hands: over processes, over their ends, and while somebody reads."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest

from app.rows import OTHERS, Rows

COUNTING = """
import os, signal, sys
from app.rows import Rows

rows = Rows("toys", width=2, limit=3)
for key in sys.argv[2:]:
    rows.add((key, "1"), {0: 1.0, 1: 0.5}, latest=float(len(key)))
os.kill(os.getpid(), signal.SIGKILL)
"""

CHANGING = """
import select, sys
from app.rows import Rows

rows, count = Rows("toys", width=50, limit=3), 0
while not select.select([sys.stdin], [], [], 0)[0]:  # until that is closed
    rows.add((str(count),), {0: 1.0 if count % 2 == 0 else -1.0})
    count += 1
    if count == 100:
        print("under way", flush=True)
"""


def told(rows: Rows) -> dict[tuple[str, ...], tuple[float, float, float]]:
    return {key: (*row.numbers, row.latest) for key, row in rows.read().items()}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    return tmp_path


def test_the_row_of_who_was_counted_longest_ago_goes_to_who_is_new_and_its_numbers_to_the_others() -> None:
    rows = Rows("toys", width=2, limit=2)
    assert told(rows) == {}
    for key, amount, latest in (("a", 1.0, 5.0), ("b", 2.0, 7.0), ("a", 4.0, 3.0), ("c", 8.0, 6.0)):
        rows.add((key, "1"), {1: amount}, latest=latest)
    assert told(rows) == {("a", "1"): (0.0, 5.0, 5.0), ("c", "1"): (0.0, 8.0, 6.0), OTHERS: (0.0, 2.0, 7.0)}
    rows.add(("b", "1"), {0: 1.0})  # it is back, and begins again
    assert told(rows) == {("b", "1"): (1.0, 0.0, 0.0), ("c", "1"): (0.0, 8.0, 6.0), OTHERS: (0.0, 7.0, 7.0)}


def test_an_answer_is_of_all_processes_those_that_were_killed_included(folder: Path) -> None:
    for keys in (["a", "b"], ["b", "cc", "d", "e"]):  # the second has no row left for its first
        subprocess.run([sys.executable, "-c", COUNTING, "", *keys], check=False)
    rows = Rows("toys", width=2, limit=3)
    rows.add(("a", "1"), {0: 1.0})
    assert told(rows) == {
        ("a", "1"): (2.0, 0.5, 1.0),
        ("b", "1"): (1.0, 0.5, 1.0),
        ("cc", "1"): (1.0, 0.5, 2.0),
        ("d", "1"): (1.0, 0.5, 1.0),
        ("e", "1"): (1.0, 0.5, 1.0),
        OTHERS: (1.0, 0.5, 1.0),
    }
    assert not list(folder.glob("*.tmp"))


def test_a_process_with_the_number_of_one_that_ended_goes_on_in_its_file(folder: Path) -> None:
    before = Rows("toys", width=1, limit=2)
    before.add(("a", "1"), {0: 3.0})
    before.add(("b", "1"), {0: 5.0})
    after = Rows("toys", width=1, limit=2)
    after.add(("a", "1"), {0: 1.0})
    after.add(("c", "1"), {0: 1.0})
    numbers = {key: row.numbers[0] for key, row in after.read().items()}
    assert numbers == {("a", "1"): 4.0, ("c", "1"): 1.0, OTHERS: 5.0}
    assert [each.name for each in folder.iterdir()] == [f"toys_{os.getpid()}.rows"]


@pytest.fixture
def changing(folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A process whose numbers' sum is 1 or 0 at any moment, and -1 or 2 where one was counted twice."""
    assert folder.is_dir()
    with subprocess.Popen([sys.executable, "-c", CHANGING], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.stdin.close()


def total(rows: Rows) -> float:
    return sum(float(row.numbers[0]) for row in rows.read().values())


@pytest.mark.usefixtures("changing")
def test_numbers_are_neither_counted_twice_nor_missed_while_rows_change_hands(folder: Path) -> None:
    rows = Rows("toys", width=50, limit=3)
    assert {total(rows) for _ in range(3000)} == {0.0, 1.0}
    assert len(list(folder.glob("toys_*.rows"))) == 2


def test_nor_where_the_process_that_counts_stands_still(changing: "subprocess.Popen[bytes]") -> None:
    rows, seen = Rows("toys", width=50, limit=3), set()
    for _ in range(500):
        time.sleep(0.0005)
        changing.send_signal(signal.SIGSTOP)
        os.waitpid(changing.pid, os.WUNTRACED)
        seen.add(total(rows))
        changing.send_signal(signal.SIGCONT)
    assert seen == {0.0, 1.0}


def test_a_process_that_ended_while_a_row_changed_hands_left_numbers_that_count_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the next one with its number goes on from there."""
    ended = Rows("toys", width=1, limit=2)
    ended.add(("a", "1"), {0: 3.0})
    ended.add(("b", "1"), {0: 5.0})
    with monkeypatch.context() as cut:
        cut.setattr(ended, "_hand_over", Mock(side_effect=InterruptedError))
        with pytest.raises(InterruptedError):
            ended.add(("c", "1"), {0: 7.0})
    assert {key: row.numbers[0] for key, row in ended.read().items()} == {OTHERS: 3.0, ("b", "1"): 5.0}
    after = Rows("toys", width=1, limit=2)
    after.add(("c", "1"), {0: 7.0})
    numbers = {key: row.numbers[0] for key, row in after.read().items()}
    assert numbers == {OTHERS: 3.0, ("b", "1"): 5.0, ("c", "1"): 7.0}
    assert len(list(folder.iterdir())) == 1
