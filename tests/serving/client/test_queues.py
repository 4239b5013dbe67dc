"""What an HTTP process has under way with engines: what it foresees, and remembers of an engine that was full."""

import pytest

from app.inference.limits import Limits
from app.inference.pace import Queue
from app.inference.queues import _MAX_QUEUES, Kind, Queues, kind_of

WIDE = Limits(images=1000, bytes=10**9)


class Clock:
    """Time as the test wants it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr("app.inference.pace.time.monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_a_queue_foresees_by_what_is_under_way_and_a_lone_request_waits_for_nobody(clock: Clock) -> None:
    queue = Queue(WIDE)
    queue.begin(100, 0)
    for _ in range(50):
        clock.now += 0.1
        queue.end(1, 0, answered=True)
    assert queue.wait(10) == pytest.approx(6.0)  # 50 are still under way
    assert not queue.refuses(10, 0, patience=6.5)
    assert queue.refuses(10, 0, patience=5.5)
    queue.end(50, 0, answered=False)
    assert queue.idle
    assert queue.wait(10_000) == 0


def test_who_alone_fills_an_engine_need_not_ask_it(clock: Clock) -> None:
    queue = Queue(Limits(images=10, bytes=100))
    assert not queue.refuses(11, 101, patience=1e9)  # one request alone always has a place
    queue.begin(9, 50)
    assert not queue.refuses(1, 50, patience=1e9)
    assert queue.refuses(2, 50, patience=1e9)
    assert queue.refuses(1, 51, patience=1e9)
    queue.end(9, 50, answered=False)
    assert not queue.refuses(11, 101, patience=1e9)
    queues = Queues(Limits(images=80, bytes=800))
    for kind, places in ((Kind.SERVED, 80), (Kind.NORMALISED, 80), (Kind.EXPLAINED, 10), (Kind.PREPARED, 10)):
        each = queues.of("toy", 1, kind)
        each.begin(places - 1, 1)
        assert not each.refuses(1, 1, patience=1e9)
        assert each.refuses(2, 1, patience=1e9)


def test_what_an_engine_refused_tells_of_requests_that_are_as_large_and_of_no_others(clock: Clock) -> None:
    queue = Queue(WIDE)
    queue.full(256, 5_000, patience=1e9, seconds=1.0)
    assert queue.refuses(256, 5_000, patience=1e9)
    assert queue.refuses(300, 9_000, patience=1e9)
    assert not queue.refuses(1, 20, patience=1e9)
    assert not queue.refuses(300, 4_999, patience=1e9)  # the bytes may have been what was too much
    clock.now = 1.0
    assert not queue.refuses(256, 5_000, patience=1e9)


def test_the_smallest_of_what_was_refused_is_remembered_until_its_time_is_over(clock: Clock) -> None:
    queue = Queue(WIDE)
    queue.full(256, 5_000, patience=1e9, seconds=1.0)
    clock.now = 0.5
    queue.full(1, 20, patience=1e9, seconds=1.0)
    queue.full(256, 5_000, patience=1e9, seconds=100.0)  # tells nothing new: not that one image has no place
    clock.now = 1.4
    assert queue.refuses(1, 20, patience=1e9)
    clock.now = 1.5
    assert not queue.refuses(1, 20, patience=1e9)


def test_what_was_refused_for_want_of_time_tells_nothing_of_requests_that_have_more(clock: Clock) -> None:
    queue = Queue(WIDE)
    queue.full(1, 20, patience=0.5, seconds=1.0)
    assert queue.refuses(1, 20, patience=0.5)
    assert queue.refuses(1, 20, patience=0.55)  # nearly the same
    assert not queue.refuses(1, 20, patience=15.0)
    queue.full(1, 20, patience=15.0, seconds=1.0)
    assert queue.refuses(1, 20, patience=15.0)
    queue.full(1, 20, patience=0.5, seconds=100.0)  # tells nothing new
    clock.now = 1.0
    assert not queue.refuses(1, 20, patience=0.5)


def test_work_that_waits_for_no_other_in_an_engine_has_a_queue_of_its_own() -> None:
    assert kind_of("classify", {"sizes": [1]}) is Kind.SERVED
    assert kind_of("infer", {"input": "pixels"}) is Kind.SERVED
    assert kind_of("infer", {}) is Kind.SERVED  # not known yet
    assert kind_of("infer", {"input": "normalised"}) is Kind.NORMALISED
    assert (kind_of("explain", {}), kind_of("preprocess", {})) == (Kind.EXPLAINED, Kind.PREPARED)
    queues = Queues(WIDE)
    for kind in set(Kind) - {Kind.SERVED}:
        queues.full("toy", 1, kind, images=1, size=1, patience=1e9)
        assert queues.of("toy", 1, kind).refuses(1, 1, patience=1e9)
    assert not queues.of("toy", 1, Kind.SERVED).refuses(1, 1, patience=1e9)
    assert not queues.of("toy", 2, Kind.EXPLAINED).refuses(1, 1, patience=1e9)


def test_of_many_queues_those_go_in_which_nothing_is_under_way() -> None:
    queues = Queues(WIDE)
    busy = queues.of("toy", 0, Kind.SERVED)
    busy.begin(1, 1)
    for version in range(1, 3 * _MAX_QUEUES):
        queues.of("toy", version, Kind.SERVED)
    assert len(queues._queues) <= _MAX_QUEUES
    assert queues.of("toy", 0, Kind.SERVED) is busy
