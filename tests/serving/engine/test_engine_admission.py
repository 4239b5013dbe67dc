"""What an engine takes in: as much as it can hold, and no more than it can compute in time."""

import asyncio
from collections.abc import Coroutine

import pytest

from app.engine.admission import Admission, Overloaded, Places
from app.inference.limits import Limits
from app.inference.pace import Pace

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


def test_the_pace_of_work_that_takes_seconds_is_known_after_as_many_images_as_that_of_any_other() -> None:
    pace = Pace()
    pace.begin(0.0)
    for finished in range(1, 8):
        pace.done(1, 2.0 * finished)
    assert pace.wait(64) == 0
    for finished in range(8, 30):
        pace.done(1, 2.0 * finished)
        assert pace.wait(64) == pytest.approx(128.0)
    for finished in range(1, 11):
        pace.done(1, 58.0 + 20.0 * finished)  # and slower still
    assert 1200 < pace.wait(64) <= 1280


def test_images_that_were_given_up_make_it_slower_not_faster() -> None:
    pace = Pace()
    pace.begin(0.0)
    pace.done(10, 1.0)
    alone = pace.wait(10)
    pace.done(10, 5.0)  # of these four seconds three went into images that nobody waited for in the end
    assert pace.wait(10) > 2 * alone


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


def test_of_slow_work_no_more_is_taken_in_than_can_be_done_in_time() -> None:
    async def main() -> None:
        admission, release = Admission(WIDE), asyncio.Event()
        admission._pace.begin(0.0)
        for finished in range(1, 11):
            admission._pace.done(1, 1.0 * finished)  # an explanation a second
        asked = [asyncio.create_task(held(admission, images=1, timeout=30, release=release)) for _ in range(64)]
        await asyncio.sleep(0)
        assert admission.images == 21  # seven tenths of their time
        release.set()
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(each) for each in outcomes[21:]] == [Overloaded] * 43
        assert outcomes[:21] == [None] * 21

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


def test_each_kind_of_work_has_places_of_its_own_and_what_is_slow_tells_nothing_of_the_pace_of_the_rest() -> None:
    async def main() -> None:
        places, release = Places(Limits(images=20, bytes=100)), asyncio.Event()
        most = {places.served: 20, places.normalised: 20, places.explained: 3, places.prepared: 3}
        holding = [asyncio.create_task(held(place, images=n, timeout=60, release=release)) for place, n in most.items()]
        await asyncio.sleep(0)
        assert (places.images, places.idle_seconds) == (46, 0.0)
        for place, n in most.items():
            with pytest.raises(Overloaded, match=f"^{n} images wait already; at most {n} may$"):
                await held(place, images=1, timeout=60, release=release)
        release.set()
        await asyncio.gather(*holding)
        assert places.images == 0
        for place in (places.explained, places.prepared):
            async with place.admit(images=1, size=7, timeout=60):
                with pytest.raises(Overloaded):  # of the bytes, too, they have an eighth
                    async with place.admit(images=1, size=7, timeout=60):
                        pass
            place._pace.begin(0.0)
            place._pace.done(10, 100.0)  # ten seconds an image
        async with places.served.admit(images=1, size=1, timeout=1):
            await held(places.served, images=1, timeout=1, release=release)

    run(main())
