"""An exception at any of the supervisor's steps leaves the job where it truthfully is, and nothing behind."""

import pytest
from toy_claims import DONE, gone, started

from jobs.model import State
from store import faults
from worker import lease

CRASHING = [["exit", 1]]
LONG = [["ticking", 3000], *DONE]  # nothing is being written when the exception ends it
LEFT = [["leftover"], *DONE]

#: Point → what the first claim does, and the job's state after a claim that was interrupted there.
INTERRUPTED = {
    "supervisor.claimed": (LEFT, State.QUEUED),
    "supervisor.spec_written": (LEFT, State.QUEUED),
    "supervisor.orders_written": (LEFT, State.QUEUED),
    "supervisor.started": (LEFT, State.QUEUED),
    "supervisor.before_renew": (LONG, State.QUEUED),
    "supervisor.renewed": (LONG, State.QUEUED),
    "supervisor.before_emit": (LONG, State.QUEUED),
    "supervisor.emitted": (LONG, State.QUEUED),
    "supervisor.before_publishing": (LEFT, State.QUEUED),
    "supervisor.publishing": (LEFT, State.QUEUED),
    "supervisor.published": (LEFT, State.QUEUED),
    "supervisor.before_finish": (LEFT, State.QUEUED),
    "supervisor.finished": (LEFT, State.SUCCEEDED),
    "supervisor.before_release": (CRASHING, State.QUEUED),
    "supervisor.released": (CRASHING, State.QUEUED),
}


@pytest.fixture
def inject():
    """`inject(text)` sets what `RESNETD_FAULT` would have set."""
    yield faults.configure
    faults.configure("")


def test_every_step_of_the_supervisor_is_in_this_list():
    assert set(INTERRUPTED) == {name for name in faults.POINTS if name.startswith("supervisor.")}


@pytest.mark.parametrize("point", INTERRUPTED)
def test_an_exception_there_ends_truthfully(run, inject, layout, monkeypatch, point):
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.1)
    script, state = INTERRUPTED[point]
    inject(f"{point}:1:raise")
    job = run(script, DONE)
    assert (job.state, job.crashes) == (state, 1 if state is State.QUEUED else 0)
    assert faults.passed(point)
    assert not list(layout.job(job.id).rglob("*.tmp"))
    if (pid := layout.job(job.id) / "pid-1").exists():
        assert gone(started(layout, job.id)), pid


def test_a_published_result_is_published_once_although_its_claim_was_interrupted(run, inject, ledger):
    inject("supervisor.published:1:raise")
    job = run(DONE, DONE)
    inject("")
    job = run(job_id=job.id)
    assert (job.state, job.claim, job.crashes) == (State.SUCCEEDED, 2, 1)
    assert [event.type for event in ledger.events(job.id, limit=100)[0]].count("succeeded") == 1
