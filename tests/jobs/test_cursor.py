"""Cursors tell a moment exactly, as the ledger wrote it down."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from jobs.cursor import cursor, milliseconds, place
from jobs.model import Job

MICROSECONDS = st.integers(0, 4_000_000_000_000_000)  # to the year 2096


@given(MICROSECONDS)
def test_the_moment_of_a_record_is_found_again_to_the_last_digit(micros: int):
    written = f"{micros // 1000}.{micros % 1000:03d}"
    job = Job(id="job_1", kind="train", state="queued", spec={}, created_at=written)
    found = place(cursor(job.created_at, job.id))
    assert found == (job.created_at, "job_1")
    assert milliseconds(found[0]) == written


def test_an_id_is_no_cursor():
    for text in ("job_1", "ds_2", "", "12", "12_", "-1_x", "9" * 30 + "_x"):
        assert place(text) is None
    assert place("0_a_b") == (datetime(1970, 1, 1, tzinfo=UTC), "a_b")
