"""A stop has one deadline, whatever its parts do: in order as long as they obey, and nothing is left."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from running import Running, environment, processes_that_name

from resnetd import orphans
from resnetd.parts import KILLED_SECONDS, Part, Parts
from resnetd.up import UP_STOP_SECONDS, _hurried, serving, worker
from store.settings import Settings

PROGRAM = Path(__file__).with_name("stubborn_parts.py")
# Children that end are ignored, as by a parent that had set so. It ends once it has seen its part's exit status.
SEES_AN_EXIT_STATUS = """
import os, signal
from resnetd.parts import Part, Parts

signal.signal(signal.SIGCHLD, signal.SIG_IGN)

def last_words(pid):
    os.kill(os.getpid(), signal.SIGTERM)
    return ""

Parts([Part("short", ["/bin/sh", "-c", "exit 3"], last_words=last_words)]).run(announce=lambda: True)
"""


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
def test_what_does_not_obey_is_killed_with_its_children_and_what_obeys_ends_in_order(tmp_path, by):
    log = tmp_path / "log"
    running = Running([sys.executable, str(PROGRAM), str(tmp_path)], log=log, env=environment())
    running.line_with("all run")
    assert any("sleep 300" in line for line in processes_that_name(tmp_path))
    running.stop(by=by)
    assert running.process.returncode == 0
    assert processes_that_name(tmp_path) == []
    assert (tmp_path / "order").read_text().split() == ["worker", "redis"]


def test_a_part_has_what_is_left_when_those_that_stop_after_it_have_theirs():
    redis, fleet = Part("redis", [], stop_seconds=2.5), Part("fleet", [], stop_seconds=2.0, leans_on=("redis",))
    http = Part("http", [], stop_seconds=10.0, leans_on=("fleet",))
    parts = Parts([redis, fleet, http])
    assert [parts._after(each) for each in (redis, fleet, http)] == [0.0, 2.5, 4.5]
    assert parts.stop_seconds == 14.5
    assert Parts([redis, fleet, http], seconds=5.0).stop_seconds == 5.0
    http.terminate(until=0.0)
    assert http._kill_at == 0.0


def test_up_promises_fifteen_seconds_and_gives_no_part_more_than_it_has():
    settings = _hurried(Settings(drain_seconds=3600, drain_delay_seconds=3600))
    assert (settings.drain_seconds, settings.drain_delay_seconds) == (8.0, 2.0)
    assert UP_STOP_SECONDS + 2 * KILLED_SECONDS < 15
    assert worker(settings, {}).stop_seconds <= UP_STOP_SECONDS - 2.5  # Redis has the rest
    with socket.socket() as listener:
        fleet, http = serving(settings, listener, {"RESNETD_DRAIN_SECONDS": "8.0"}, in_a_hurry=True)
    assert float(fleet.environment["RESNETD_DRAIN_SECONDS"]) < fleet.stop_seconds
    assert 2.0 + 8.0 < UP_STOP_SECONDS - fleet.stop_seconds <= http.stop_seconds
    few = _hurried(Settings(drain_seconds=1, drain_delay_seconds=0))
    assert (few.drain_seconds, few.drain_delay_seconds) == (1.0, 0.0)


def test_children_that_others_started_are_spared():
    process = subprocess.Popen(["sleep", "300"])
    other = subprocess.Popen(["sleep", "300"])
    try:
        spared = orphans.children() - {process.pid}
        assert other.pid in spared
        assert orphans.end(spared=spared, seconds=10) == {process.pid}
        assert other.poll() is None
        assert process.pid not in orphans.children()
    finally:
        for each in (process, other):
            each.kill()
            each.wait()


def test_parts_that_the_kernel_holds_are_waited_for_together(monkeypatch):
    parts = [Part(f"http-{number}", ["sleep", "300"]) for number in range(12)]
    for part in parts:
        part.start()
        assert part.process is not None
        part.process.send_signal(signal.SIGSTOP)  # so it does not obey, and no SIGKILL reaches it
    monkeypatch.setattr(os, "killpg", lambda pid, number: None)
    try:
        began = time.monotonic()
        Parts(parts, seconds=0.0)._stop_all()
        assert KILLED_SECONDS <= time.monotonic() - began < 6 * KILLED_SECONDS
    finally:
        for part in parts:
            assert part.process is not None
            part.process.kill()
            part.process.wait()


def test_what_ended_by_itself_is_collected_and_not_told_as_killed():
    process = subprocess.Popen(["true"])
    spared = orphans.children() - {process.pid}
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert process.pid in orphans.children()
    assert orphans.end(spared=spared, seconds=10) == set()
    assert process.pid not in orphans.children()
    process.wait()


def test_a_child_that_is_gone_before_it_is_killed_is_no_error(monkeypatch):
    listed = iter([{2**22 + 1: "S"}, {}])  # more than any process's number
    monkeypatch.setattr(orphans, "_states", lambda: next(listed))
    orphans.end(spared=set(), seconds=10)
    assert next(listed, None) is None


def test_exit_statuses_are_seen_though_whoever_started_it_ignores_that_children_end():
    command = [sys.executable, "-c", SEES_AN_EXIT_STATUS]
    assert subprocess.run(command, env=environment(), timeout=60, check=False).returncode == 0
