"""A worker that no longer hears its bells ends itself, and no other worker does."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from waiting import wait_for

from jobs.model import Kind, Lane
from worker import idle
from worker.idle import IdleWatch
from worker.lane import slot

HERE = Path(__file__).parent


class Left(BaseException):
    """The process would have ended here."""


@pytest.fixture
def patient(ledger, workplace, monkeypatch):
    def leave(code):
        raise Left(code)

    monkeypatch.setattr(os, "_exit", leave)
    return IdleWatch(ledger, workplace)


@pytest.fixture
def watch(patient, monkeypatch):
    """One that waits for nothing."""
    monkeypatch.setattr(idle, "IDLE_SECONDS", 0.0)
    return patient


def test_jobs_that_wait_while_the_slot_stays_free_end_the_worker(watch, ledger, workplace):
    watch.look()
    ledger.submit(Kind.TRAIN, {})
    watch.look()  # from here on it is waited
    with pytest.raises(Left, match="70"):
        watch.look()
    assert not workplace.drain.exists()


def test_a_worker_without_jobs_may_be_idle(watch):
    for _ in range(3):
        watch.look()


def test_the_wait_is_half_a_minute(patient, ledger, monkeypatch):
    now = 1000.0
    monkeypatch.setattr(idle, "time", SimpleNamespace(monotonic=lambda: now))
    ledger.submit(Kind.TRAIN, {})
    patient.look()
    now = 1029.9
    patient.look()
    now = 1030.1
    with pytest.raises(Left, match="70"):
        patient.look()


def test_jobs_behind_a_running_one_are_not_in_vain(watch, ledger, layout):
    ledger.submit(Kind.TRAIN, {})
    with slot(layout, Lane.DEVICE, "cpu"):
        for _ in range(3):
            watch.look()


def test_as_long_as_bells_are_answered_the_worker_listens(watch, ledger, layout):
    ledger.submit(Kind.TRAIN, {})
    for _ in range(3):
        watch.look()
        before = watch._waiting[Lane.DEVICE].taken
        wait_for(lambda before=before: taken(layout) > before)


def taken(layout):
    with slot(layout, Lane.DEVICE, "cpu"):
        pass
    return idle.last_taken(idle.lock_path(layout, Lane.DEVICE, "cpu")) or 0


def test_a_job_of_another_lane_is_stopped_in_good_order_first(watch, ledger, layout, workplace):
    ledger.submit(Kind.TRAIN, {})
    with slot(layout, Lane.CPU, "cpu"):
        watch.look()
        watch.look()
        assert workplace.drain.exists()
        watch.look()
    with pytest.raises(Left):
        watch.look()


def test_a_job_that_does_not_stop_is_not_waited_for_for_ever(ledger, layout, workplace, watch, monkeypatch):
    monkeypatch.setattr(idle, "LEAVE_SECONDS", 0.0)
    watch = IdleWatch(ledger, replace(workplace, drain_seconds=0.0))
    ledger.submit(Kind.TRAIN, {})
    with slot(layout, Lane.CPU, "cpu"):
        watch.look()
        with pytest.raises(Left):
            watch.look()


def test_a_deaf_worker_ends_with_status_70(layout, redis_url, ledger, tmp_path):
    """The whole worker, whose consumer is taken away from its event loop as a broken client would do it."""
    ledger.submit(Kind.TRAIN, {"scripts": [[["hang"]]]})
    environment = os.environ | {"PYTHONPATH": str(HERE), "RESNETD_DATA": str(layout.root), "REDIS_URL": redis_url}
    with (tmp_path / "worker.log").open("wb") as log:
        worker = subprocess.Popen([sys.executable, HERE / "deaf_worker.py"], env=environment, stderr=log, stdout=log)
    try:
        assert worker.wait(timeout=30) == idle.EXIT_CODE, (tmp_path / "worker.log").read_text()[-3000:]
    finally:
        worker.kill()
        worker.wait()
    assert "hears no bell" in (tmp_path / "worker.log").read_text()
