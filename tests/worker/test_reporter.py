"""What a process says arrives in order and once, however long nobody takes it."""

import pytest
from redis import ConnectionError as RedisIsAway

from jobs.answers import Claim
from jobs.model import Kind
from worker import reporter
from worker.reporter import Reporter


class Book:
    """A ledger that can be away: `emit` as the real one has it."""

    def __init__(self):
        self.away = False
        self.got = []
        self.calls = []

    def emit(self, claim, sequence, events, *, patch=None):
        if self.away:
            raise RedisIsAway
        self.calls.append((sequence, len(events)))
        self.got += events


@pytest.fixture
def book():
    return Book()


@pytest.fixture
def say(book):
    return Reporter(book, Claim(job_id="job_1", number=1, kind=Kind.TRAIN, spec={}))


def test_what_could_not_be_delivered_comes_later_in_order_and_in_calls_of_bounded_size(book, say):
    book.away = True
    for n in range(1200):
        say.take("log", {"n": n})
    assert not say.flush()
    book.away = False
    assert say.flush()
    assert [data["n"] for _, data in book.got] == list(range(1200))
    assert book.calls == [(1, 500), (2, 500), (3, 200)]


def test_what_is_too_much_to_hold_is_counted_and_told_of(book, say, monkeypatch):
    monkeypatch.setattr(reporter, "MAX_HELD", 10)
    book.away = True
    for n in range(15):
        say.take("log", {"n": n})
    for _ in range(3):
        assert not say.flush()
    book.away = False
    say.flush()
    say.flush()
    assert [kind for kind, _ in book.got] == ["log"] * 10 + ["warning"]
    assert book.got[-1][1]["message"].startswith("5 events")


def test_the_last_flush_of_a_job_tells_of_what_was_dropped_too_and_of_the_newest_checkpoint(book, say, monkeypatch):
    monkeypatch.setattr(reporter, "MAX_HELD", 10)
    book.away = True
    for n in range(12):
        say.take("log", {"n": n})
    for step in (1, 2):
        say.take("checkpoint", {"step": step})
    book.away = False
    assert say.flush(final=True)
    assert [kind for kind, _ in book.got] == ["log"] * 10 + ["warning", "checkpoint"]
    assert book.got[-1][1] == {"step": 2}


def test_an_outage_leaves_the_newest_progress_only(book, say):
    book.away = True
    for n in range(5):
        say.take("progress", {"step": n})
        say.flush(final=n == 4)
    book.away = False
    assert say.flush(final=True)
    assert book.got[-1] == ("progress", {"step": 4})
    assert len(book.got) <= 2
