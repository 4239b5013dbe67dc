"""What a claim began to publish is brought to its end: by it, or by those after it."""

from ledger_kit import ERROR, claim, due_now, submit

from jobs.model import State


def test_what_a_claim_began_to_publish_is_handed_to_the_next_ones_whatever_dies_and_whatever_is_asked(ledger):
    job_id = submit(ledger)
    held = claim(ledger)
    assert held.publishing is None
    assert ledger.begin_publishing(held, {"artifact": "claim-1/model"})
    for deaths in range(1, 5):
        assert ledger.release(held, crash=ERROR) is State.QUEUED
        for verb in (ledger.cancel, ledger.pause):
            assert verb(job_id).outcome == "publishing"
        due_now(ledger, job_id)
        held = claim(ledger, token=f"t{deaths}")
        assert (held.publishing, held.crashes_in_a_row) == ({"artifact": "claim-1/model"}, deaths)
    assert ledger.succeed(held, {}) is State.SUCCEEDED


def test_a_pause_asked_for_before_publishing_does_not_hold_up_what_is_being_published(ledger):
    job_id = submit(ledger)
    held = claim(ledger)
    ledger.pause(job_id)
    assert ledger.begin_publishing(held, {"artifact": "a"})
    assert ledger.release(held, crash=ERROR) is State.QUEUED


def test_a_job_of_which_nothing_is_public_may_still_fail(ledger):
    job_id = submit(ledger)
    held = claim(ledger)
    assert ledger.begin_publishing(held, {"artifact": "a"})
    assert ledger.fail(held, ERROR) is State.FAILED
    assert ledger.cancel(job_id).outcome == "refused"


def test_the_result_that_was_begun_with_stays_the_one(ledger):
    job_id = submit(ledger)
    held = claim(ledger)
    assert ledger.begin_publishing(held, {"artifact": "first"})
    assert ledger.begin_publishing(held, {"artifact": "second"})
    ledger.release(held, crash=None)
    due_now(ledger, job_id)
    assert claim(ledger, token="next").publishing == {"artifact": "first"}
