"""What an engine takes in: as much as it can hold, and no more than it can compute in time."""

import asyncio
from collections.abc import Coroutine

import pytest

from app.engine.admission import Admission, Limits, Overloaded
from app.inference.pace import Pace, Queue

WIDE = Limits(images=1000, bytes=10**9)


def test_pace_is_the_time_of_work_through_the_images_that_were_finished_in_it() -> None:
    pace = Pace()
    pace.begin(100.0)
    assert pace.wait(1000) == 0  # nothing is known, nobody is refused by it
    for finished in range(1, 33):
        pace.done(1, 100.0 + 0.1 * finished)
    assert pace.wait(50) == pytest.approx(5.0)
    pace.begin(1000.0)  # the time in which there was no work does not count
    pace.done(10, 1001.0)
    assert pace.wait(50) == pytest.approx(5.0)


def test_pace_follows_what_happens_now() -> None:
    pace = Pace()
    pace.begin(0.0)
    for finished in range(1, 101):
        pace.done(1, 0.01 * finished)  # 100 images a second
    for finished in range(1, 201):
        pace.done(1, 1.0 + 0.1 * finished)  # now it is 10
    assert 9 < pace.wait(100) <= 10


def test_images_that_were_given_up_make_it_slower_not_faster() -> None:
    pace = Pace()
    pace.begin(0.0)
    pace.done(10, 1.0)
    alone = pace.wait(10)
    pace.done(10, 5.0)  # of these four seconds three went into images that nobody waited for in the end
    assert pace.wait(10) > 2 * alone


def test_a_queue_foresees_by_what_is_under_way_and_a_lone_request_waits_for_nobody(monkeypatch) -> None:
    now = 0.0
    monkeypatch.setattr("app.inference.pace.time.monotonic", lambda: now)
    queue = Queue()
    queue.begin(100)
    for _ in range(50):
        now += 0.1
        queue.end(1, answered=True)
    assert queue.wait(10) == pytest.approx(6.0)  # 50 are still under way
    assert not queue.refuses(10, patience=6.5)
    assert queue.refuses(10, patience=5.5)
    queue.end(50, answered=False)
    assert queue.idle
    assert queue.wait(10_000) == 0
    queue.full(seconds=1.0)
    assert queue.refuses(1, patience=1e9)
    now += 2.0
    assert not queue.refuses(1, patience=0.0)


async def held(admission: Admission, *, images: int, timeout: float, release: asyncio.Event) -> None:  # noqa: ASYNC109 - that of a request
    async with admission.admit(images=images, size=1, timeout=timeout):
        await release.wait()


def run(test: Coroutine[None, None, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 20))


def test_a_request_that_would_wait_longer_than_it_may_is_refused_at_once_and_a_patient_one_is_taken() -> None:
    async def main() -> None:
        admission, release = Admission(WIDE), asyncio.Event()
        admission._pace.begin(0.0)
        for finished in range(1, 101):
            admission._pace.done(1, 0.1 * finished)  # ten images a second
        holding = asyncio.create_task(held(admission, images=100, timeout=60, release=release))
        await asyncio.sleep(0)  # the first is always let in
        with pytest.raises(Overloaded, match="an answer would take 10 s"):
            await held(admission, images=1, timeout=10, release=release)
        patient = asyncio.create_task(held(admission, images=1, timeout=20, release=release))
        await asyncio.sleep(0)
        assert admission.images == 101
        release.set()
        await asyncio.gather(holding, patient)
        assert admission.images == 0

    run(main())


def test_requests_that_were_cancelled_or_late_leave_no_image_behind_and_count_as_none_that_was_finished() -> None:
    async def main() -> None:
        admission, never = Admission(WIDE), asyncio.Event()
        leaving = asyncio.create_task(held(admission, images=50, timeout=60, release=never))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        with pytest.raises(TimeoutError):
            await held(admission, images=50, timeout=0.01, release=never)
        assert admission.images == 0
        assert admission._pace.wait(1) == 0

    run(main())


def test_explanations_and_other_work_beside_the_batches_say_nothing_of_their_pace() -> None:
    async def main() -> None:
        admission, release = Admission(WIDE), asyncio.Event()
        for _ in range(20):
            async with admission.admit(images=1, size=1, timeout=60, batched=False):
                assert admission.images == 1
                await asyncio.sleep(0)
        assert admission._pace.wait(1) == 0
        admission._pace.begin(0.0)
        admission._pace.done(10, 100.0)  # ten seconds an image
        release.set()
        async with admission.admit(images=1, size=1, timeout=1, batched=False):
            await held(admission, images=1, timeout=1, release=release)  # the first in the batches is always let in

    run(main())
