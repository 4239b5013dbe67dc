"""The supervisor tells the ledger truthfully what became of a job's process, whatever that does."""

import errno
import threading
import time

import pytest
from redis import ConnectionError as RedisIsAway
from toy_claims import DONE, gone, started
from waiting import wait_for

from jobs import keys
from jobs.model import JobError, State
from worker import lease, supervisor


def events(ledger, job_id):
    return [(event.type, event.data) for event in ledger.events(job_id, limit=1000)[0]]


def test_a_job_that_says_its_result_succeeds_with_its_metrics_and_best_epoch(run, ledger):
    epochs = [["say", "epoch", {"epoch": n, "best": best}] for n, best in ((1, True), (2, True), (3, False))]
    job = run([["say", "progress", {"step": 3}], *epochs, *DONE])
    assert job.state is State.SUCCEEDED
    assert job.result == {"metrics": {"test": {"top1": 0.5}}}
    assert (job.latest["epoch"], job.best["epoch"]) == (3, 2)
    assert job.progress == {"step": 3}
    assert [kind for kind, _ in events(ledger, job.id)].count("epoch") == 3


def test_progress_is_coalesced_but_the_last_one_arrives(run, ledger):
    job = run([["flood", 5000], *DONE])
    progress = [data["step"] for kind, data in events(ledger, job.id) if kind == "progress"]
    assert len(progress) < 20
    assert progress[-1] == 4999


def test_what_is_no_json_line_harms_nothing(run):
    assert run([["noise"], *DONE]).state is State.SUCCEEDED


def test_a_refusal_fails_the_job_with_the_processes_own_words(run):
    job = run([["say", "error", {"code": "bad_data", "message": "No.", "hint": "Do."}], ["exit", 78]])
    assert job.state is State.FAILED
    assert job.error == JobError(code="bad_data", message="No.", hint="Do.")


def test_a_full_disk_while_publishing_is_said_to_be_one_and_the_job_does_not_hang(run, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(supervisor, "publish", full)
    job = run(DONE)
    assert (job.state, job.error.code) == (State.FAILED, "disk_full")


def test_a_failure_of_the_supervisor_itself_gives_the_job_back_at_once(run, ledger, monkeypatch):
    def broken(*_):
        raise ValueError("no such thing")

    monkeypatch.setattr(supervisor, "publish", broken)
    job = run(DONE)
    assert (job.state, job.crashes) == (State.QUEUED, 1)
    error = JobError.model_validate(ledger.events(job.id, limit=100)[0][-1].data["error"])
    assert (error.code, error.message) == ("worker_failed", "The worker failed over the job: ValueError: no such thing")
    assert ledger.cancel(job.id).outcome == "publishing"  # nobody knows here how much of it is public


def test_what_a_claim_began_to_publish_the_next_one_ends_without_a_process(run, layout, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr(supervisor, "publish", lambda *_: 1 / 0)
        job = run(DONE)
    job = run(job_id=job.id)
    assert (job.state, job.claim, job.crashes) == (State.SUCCEEDED, 2, 1)
    assert not (layout.job(job.id) / "claim-2" / "stderr.log").exists()


def test_a_result_of_which_nothing_is_public_and_that_cannot_be_published_fails_the_job_in_the_end(run, monkeypatch):
    monkeypatch.setattr(supervisor, "publish", lambda *_: 1 / 0)
    job = run(DONE, bells=supervisor.PUBLISHING_TRIES + 1)
    assert (job.state, job.error.code) == (State.FAILED, "publishing_failed")


def test_a_result_that_is_public_in_part_never_fails_the_job(run, monkeypatch):
    monkeypatch.setattr(supervisor, "is_public", lambda *_: True)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(supervisor, "publish", full)
        job = run(DONE, bells=supervisor.PUBLISHING_TRIES + 2)
    assert job.state is State.QUEUED
    assert run(job_id=job.id).state is State.SUCCEEDED


def test_the_lease_is_kept_while_a_large_result_is_copied(run, ledger, monkeypatch):
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.05)
    true_publish = supervisor.publish
    renewed = threading.Event()

    def slow(claim, layout, result):
        ledger.redis.zadd(keys.LEASES, {claim.job_id: 1})
        wait_for(lambda: ledger.redis.zscore(keys.LEASES, claim.job_id) > 1)
        renewed.set()
        return true_publish(claim, layout, result)

    monkeypatch.setattr(supervisor, "publish", slow)
    assert run(DONE).state is State.SUCCEEDED
    assert renewed.is_set()


def test_a_full_disk_is_its_own_error(run):
    assert run([["exit", 77]]).error.code == "disk_full"


@pytest.mark.parametrize("ending", [["kill", "SIGKILL"], ["kill", "SIGSEGV"], ["exit", 1], ["exit", 0]])
def test_a_death_or_an_end_without_a_result_requeues_and_the_next_claim_may_succeed(run, ending):
    job = run([ending], DONE, bells=2)
    assert job.state is State.SUCCEEDED
    assert (job.claim, job.crashes) == (2, 1)


def test_three_deaths_fail_the_job_and_tell_what_it_last_said(run):
    job = run([["stderr", "the last words"], ["exit", 1]], bells=3)
    assert job.state is State.FAILED
    assert job.error.code == "crash_loop"
    assert "the last words" in job.error.hint
    assert "the last words" in job.error.log


def test_a_cancelled_job_stops_soon_and_its_process_is_gone(run, ledger, layout):
    def cancel(job_id):
        started(layout, job_id)
        ledger.cancel(job_id)

    began = time.monotonic()
    job = run([["hang"]], meanwhile=cancel)
    assert job.state is State.CANCELLED
    assert time.monotonic() - began < 5
    assert gone(started(layout, job.id))


def test_a_process_that_ignores_sigterm_is_killed(run, ledger, layout):
    def cancel(job_id):
        started(layout, job_id)
        ledger.cancel(job_id)

    job = run([["deaf"], ["hang"]], meanwhile=cancel)
    assert job.state is State.CANCELLED
    assert gone(started(layout, job.id))


def test_what_a_job_leaves_running_is_ended_with_it(run, layout):
    job = run([["grandchild"], *DONE])
    assert job.state is State.SUCCEEDED
    pid = int((layout.job(job.id) / "grandchild").read_text())
    wait_for(lambda: gone(pid))


def test_a_draining_worker_gives_its_job_back_uncounted(run, layout, tmp_path):
    def drain(job_id):
        started(layout, job_id)
        (tmp_path / "drain").touch()

    job = run([["hang"]], meanwhile=drain)
    assert (job.state, job.crashes) == (State.QUEUED, 0)
    assert gone(started(layout, job.id))


def test_a_worker_that_lost_its_lease_kills_its_process_and_writes_nothing(run, ledger, layout, monkeypatch):
    def steal(job_id):
        started(layout, job_id)
        ((job, _),) = ledger.leases()
        ledger.expire(job, owner_is_dead=True)

    job = run([["hang"]], meanwhile=steal)
    assert job.state is State.QUEUED
    assert gone(started(layout, job.id))


def test_a_draining_worker_claims_nothing(run, ledger, tmp_path):
    (tmp_path / "drain").touch()
    job = run(DONE)
    assert (job.state, job.claim) == (State.QUEUED, 0)


def test_a_claim_whose_answer_was_lost_is_asked_for_again_and_runs_at_once(run, ledger, monkeypatch):
    real, lost = ledger.claim, []

    def claim(*args, **kwargs):
        held = real(*args, **kwargs)
        if not lost:
            lost.append(held)
            raise RedisIsAway
        return held

    monkeypatch.setattr(ledger, "claim", claim)
    monkeypatch.setattr(supervisor, "RETRY_SECONDS", 0.0)
    job = run(DONE)
    assert (job.state, job.claim, job.crashes) == (State.SUCCEEDED, 1, 0)


def test_a_worker_that_goes_away_while_redis_is_away_does_not_wait_for_it(run, ledger, workplace, monkeypatch):
    def away(*_, **__):
        raise RedisIsAway

    def cut(job_id):
        monkeypatch.setattr(ledger, "emit", away)
        monkeypatch.setattr(ledger, "release", away)
        workplace.drain.touch()

    monkeypatch.setattr(supervisor, "LEAVING_SECONDS", 0.2)
    monkeypatch.setattr(supervisor, "RETRY_SECONDS", 0.1)
    job = run([["hang"]], meanwhile=lambda job_id: (started(workplace.layout, job_id), cut(job_id)))
    assert job.state is State.RUNNING  # until its lease is past
    assert gone(started(workplace.layout, job.id))
