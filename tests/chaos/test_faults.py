"""The fault points: each has a name, a place in the code, and does what it is told to."""

import ast
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from store.faults import POINTS

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("app", "jobs", "models", "resnetd", "store", "worker")
PASS = "from store.faults import point\nfor _ in range(3):\n    point('bell.heard')\n    print('passed', flush=True)\n"


def passed_points():
    """(name, place) of every call of `point` in the tree; a name that is no literal is None."""
    for path in sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py")):
        if path == ROOT / "store" / "faults.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in {"point", "faults.point"}:
                literal = node.args[0]
                name = literal.value if isinstance(literal, ast.Constant) else None
                yield name, f"{path.relative_to(ROOT)}:{node.lineno}"


def run(code, **environment):
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command,
        check=False,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_every_point_that_is_passed_has_a_name_that_is_known():
    assert [(name, place) for name, place in passed_points() if name not in POINTS] == []


def test_every_known_point_is_passed_somewhere():
    assert sorted(set(POINTS) - {name for name, _ in passed_points()}) == []


@pytest.mark.parametrize(
    "fault",
    [
        "bell.herd:1:kill",
        "bell.heard:1",
        "bell.heard:one:kill",
        "bell.heard:1:stop",
        "bell.heard:1:maim",
        "bell.heard:1:kill:3",
    ],
)
def test_a_fault_that_is_misspelt_stops_the_program_at_its_start(fault):
    ended = run(PASS, RESNETD_FAULT=fault)
    assert ended.returncode == 1
    assert "ValueError" in ended.stderr
    assert ended.stdout == ""


def test_without_a_fault_every_point_is_passed():
    assert run(PASS).stdout.split() == ["passed"] * 3


def test_kill_ends_the_process_at_its_nth_passing():
    ended = run(PASS, RESNETD_FAULT="bell.heard:2:kill")
    assert (ended.returncode, ended.stdout.split()) == (-signal.SIGKILL, ["passed"])


def test_raise_is_an_exception_that_names_the_point():
    ended = run(PASS, RESNETD_FAULT="bell.heard:3:raise")
    assert (ended.returncode, ended.stdout.split()) == (1, ["passed"] * 2)
    assert "FaultInjected: injected at bell.heard" in ended.stderr


def test_stop_goes_on_after_so_many_seconds():
    began = time.monotonic()
    ended = run(PASS, RESNETD_FAULT="bell.heard:1:stop:0.5", PATH="/usr/bin:/bin")
    assert (ended.returncode, ended.stdout.split()) == (0, ["passed"] * 3)
    assert time.monotonic() - began >= 0.5


def test_with_a_folder_of_marks_a_fault_strikes_once_over_all_processes(tmp_path):
    environment = {"RESNETD_FAULT": "bell.heard:1:kill", "RESNETD_FAULT_ONCE": str(tmp_path)}
    assert run(PASS, **environment).returncode == -signal.SIGKILL
    assert run(PASS, **environment).returncode == 0
    assert [mark.name for mark in tmp_path.iterdir()] == ["bell.heard-1-kill"]
