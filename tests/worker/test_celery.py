"""A real Celery worker, whose parts are killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from toy_claims import DONE, ended, gone, started
from waiting import wait_for

from jobs.doorbell import Doorbell
from jobs.model import LANES, Kind, State

HERE = Path(__file__).parent
HANG = [["hang"]]


@pytest.fixture
def start_worker(layout, redis_url, tmp_path):
    workers = []

    def start():
        environment = os.environ | {"PYTHONPATH": str(HERE), "RESNETD_DATA": str(layout.root), "REDIS_URL": redis_url}
        with (tmp_path / "worker.log").open("ab") as log:
            worker = subprocess.Popen([sys.executable, HERE / "toy_worker.py"], env=environment, stderr=log, stdout=log)
        workers.append(worker)
        return worker

    yield start
    for worker in workers:
        worker.kill()
        worker.wait()


@pytest.fixture
def submit(ledger, redis_url):
    doorbell = Doorbell(redis_url)

    def go(*scripts, kind=Kind.TRAIN, ring=True):
        job_id = ledger.submit(kind, {"scripts": scripts, "dataset": "ds_1"}).job_id
        if ring:
            assert doorbell.ring(LANES[kind])
        return job_id

    return go


def parent(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_a_bell_starts_the_job_and_a_bell_that_was_never_rung_costs_seconds_only(start_worker, submit, ledger):
    start_worker()
    jobs = [submit(DONE), submit(DONE, ring=False), submit(DONE, ring=False)]
    assert [ended(ledger, job).state for job in jobs] == [State.SUCCEEDED] * 3


def test_an_upload_is_not_kept_waiting_by_a_training(start_worker, submit, ledger, layout):
    start_worker()
    training = submit(HANG)
    started(layout, training)
    refusal = [["say", "error", {"code": "broken_archive", "message": "no"}], ["exit", 78]]
    assert ended(ledger, submit(refusal, kind=Kind.IMPORT)).error.code == "broken_archive"
    second = submit(DONE)
    assert ledger.state(training) is State.RUNNING
    assert ledger.state(second) is State.QUEUED  # one device, one training
    ledger.cancel(training)
    assert ended(ledger, second).state is State.SUCCEEDED


def test_whatever_is_killed_the_job_goes_on_under_a_new_claim(start_worker, submit, ledger, layout):
    worker = start_worker()
    job_id = submit(HANG, HANG, HANG, DONE)
    # First the job's own process ...
    os.kill(started(layout, job_id, 1), signal.SIGKILL)
    # ... then the pool process that supervises it ...
    pid = started(layout, job_id, 2)
    os.kill(parent(pid), signal.SIGKILL)
    wait_for(lambda: gone(pid))
    ledger.redis.hset(f"rn:job:{job_id}", "crashes_since_checkpoint", 0)
    # ... then the whole worker.
    pid = started(layout, job_id, 3)
    worker.kill()
    wait_for(lambda: gone(pid))
    start_worker()
    job = ended(ledger, job_id)
    assert (job.state, job.claim, job.crashes) == (State.SUCCEEDED, 4, 3)


def test_sigterm_gives_the_job_back_in_good_order(start_worker, submit, ledger, layout):
    worker = start_worker()
    job_id = submit(HANG)
    pid = started(layout, job_id)
    worker.terminate()
    assert worker.wait(timeout=15) == 0
    assert gone(pid)
    job = ledger.get(job_id)
    assert (job.state, job.crashes) == (State.QUEUED, 0)
    assert not list(layout.run.glob("drain-*"))
