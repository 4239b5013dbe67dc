"""Why and how a job's process is stopped, and what that makes of the job."""

import os
import signal
import time
from dataclasses import replace

import pytest
from toy_claims import DONE, gone, started
from waiting import wait_for

from jobs import keys
from jobs.model import JobError, State
from worker import stopping
from worker.outcome import Death, Ending, classify
from worker.stopping import Reason, Stopping
from worker.supervisor import Supervisor


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(stopping, "GRACE_SECONDS", 0.5)


def when_started(layout, act, claim=1):
    """For `meanwhile`: act as soon as the claim's process runs."""

    def go(job_id):
        started(layout, job_id, claim)
        act(job_id)

    return go


def test_a_paused_job_stops_in_good_order_and_goes_on_when_it_is_resumed(run, ledger, layout):
    job = run([["hang"]], DONE, meanwhile=when_started(layout, ledger.pause))
    assert (job.state, job.crashes) == (State.PAUSED, 0)
    assert gone(started(layout, job.id))
    ledger.resume(job.id)
    job = run(job_id=job.id)
    assert (job.state, job.claim) == (State.SUCCEEDED, 2)


def test_a_process_that_ends_well_while_the_job_is_pausing_is_published(run, ledger, layout):
    job = run([["until_stopped"], *DONE], meanwhile=when_started(layout, ledger.pause))
    assert job.state is State.SUCCEEDED


def test_a_process_that_ends_well_while_the_job_is_cancelling_is_not_published(run, ledger, layout):
    job = run([["until_stopped"], *DONE], meanwhile=when_started(layout, ledger.cancel))
    assert (job.state, job.result) == (State.CANCELLED, None)


def test_a_job_that_is_resumed_before_its_process_has_stopped_is_queued(run, ledger, layout):
    def there_and_back(job_id):
        ledger.pause(job_id)
        started(layout, job_id, "stopping")
        ledger.resume(job_id)
        (layout.job(job_id) / "enough").touch()

    job = run([["stop_when", "enough"]], meanwhile=when_started(layout, there_and_back))
    assert (job.state, job.crashes) == (State.QUEUED, 0)


@pytest.mark.usefixtures("impatient")
def test_a_process_too_slow_to_pause_is_killed_and_that_is_no_crash(run, ledger, layout):
    job = run([["deaf"], ["hang"]], meanwhile=when_started(layout, ledger.pause))
    assert (job.state, job.crashes) == (State.PAUSED, 0)


def test_a_process_too_slow_for_a_draining_worker_is_killed_and_that_is_no_crash(run, layout, workplace):
    drain = when_started(layout, lambda _: workplace.drain.touch())
    job = run([["deaf"], ["hang"]], meanwhile=drain, at=replace(workplace, drain_seconds=0.5))
    assert (job.state, job.crashes) == (State.QUEUED, 0)


def test_a_crash_while_pausing_counts(run, ledger, layout):
    job = run([["until_stopped"], ["exit", 1]], meanwhile=when_started(layout, ledger.pause))
    assert (job.state, job.crashes) == (State.PAUSED, 1)


def test_a_cancellation_does_not_wait_for_the_end_of_a_slow_pause(run, ledger, layout):
    def pause_then_cancel(job_id):
        ledger.pause(job_id)
        started(layout, job_id, "stopping")
        ledger.cancel(job_id)

    began = time.monotonic()
    job = run([["stop_when", "never"]], meanwhile=when_started(layout, pause_then_cancel))
    assert job.state is State.CANCELLED
    assert time.monotonic() - began < 8


def test_a_job_that_runs_too_long_is_stopped_and_fails_with_max_seconds(run):
    job = run([["hang"]], max_seconds=1)
    assert (job.state, job.error.code, job.claim) == (State.FAILED, "max_seconds", 1)


def test_max_seconds_are_counted_over_all_claims(run, ledger):
    crashed = run([["exit", 1]], [["hang"]], max_seconds=3600)
    assert (crashed.state, crashed.crashes) == (State.QUEUED, 1)
    assert 0 < crashed.ran_ms < 3_600_000
    ledger.redis.hset(keys.job(crashed.id), "ran_ms", 3_600_000)  # as if that had taken the whole hour
    job = run(job_id=crashed.id)
    assert (job.state, job.error.code, job.claim) == (State.FAILED, "max_seconds", 2)


@pytest.fixture
def patience_of_a_second(ledger, monkeypatch):
    """For `meanwhile`: from its first word on, the process may be silent for a second; its start takes longer."""

    def go(job_id):
        wait_for(lambda: ledger.get(job_id).progress)
        monkeypatch.setattr(Supervisor, "patience", 1.0)

    return go


def test_a_silent_process_is_ended_and_its_stacks_are_in_the_log(run, ledger, layout, patience_of_a_second):
    job = run([["ticking", 1], ["hang"]], meanwhile=patience_of_a_second)
    assert (job.state, job.crashes) == (State.QUEUED, 1)
    error = JobError.model_validate(ledger.events(job.id, limit=100)[0][-1].data["error"])
    assert error.code == "stalled"
    assert "toy_job.py" in error.hint
    assert "Current thread" in (layout.job(job.id) / "claim-1" / "stderr.log").read_text()


def test_a_process_that_speaks_is_not_silent(run, patience_of_a_second):
    assert run([["ticking", 150], *DONE], meanwhile=patience_of_a_second).state is State.SUCCEEDED


def test_a_killed_process_is_a_crash_however_the_signal_came(run, layout):
    def kill(job_id):
        os.kill(started(layout, job_id), signal.SIGKILL)

    job = run([["hang"]], meanwhile=kill)
    assert (job.state, job.crashes) == (State.QUEUED, 1)


def test_another_reason_leaves_less_time_and_never_more():
    stop = Stopping(drain_seconds=5.0)
    assert stop.seconds_left == float("inf")
    assert stop.begin(Reason.PAUSED)
    assert 19 < stop.seconds_left <= 20
    assert not stop.begin(Reason.DRAINED)
    assert 4 < stop.seconds_left <= 5
    assert not stop.begin(Reason.CANCELLED)
    assert stop.seconds_left <= 2
    assert stop.reason is Reason.CANCELLED
    assert not stop.begin(Reason.PAUSED)
    assert stop.seconds_left <= 2


def test_the_kernels_oom_killer_is_told_from_any_other_kill():
    death = Death(code=-signal.SIGKILL, stderr="the log", oom=True)
    outcome = classify(death)
    assert (outcome.ending, outcome.error.code, outcome.error.log) == (Ending.FAILED, "out_of_memory", "the log")
    assert outcome.error.hint
    assert classify(replace(death, oom=False)).ending is Ending.CRASHED
    assert classify(replace(death, code=-signal.SIGSEGV)).ending is Ending.CRASHED
    assert classify(replace(death, stopped=Reason.PAUSED)).ending is Ending.STOPPED


def test_a_process_that_refused_or_filled_the_disk_is_believed_whatever_it_was_stopped_for():
    refused = JobError(code="bad_data", message="no")
    for reason in (None, *Reason):
        assert classify(Death(code=78, stderr="", error=refused, stopped=reason)).error == refused
        assert classify(Death(code=77, stderr="", stopped=reason)).error.code == "disk_full"
