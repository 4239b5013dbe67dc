"""What the device computes next: images gather only while it works; all cores for a lone one, one each in a crowd."""

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial

import numpy as np
import numpy.typing as npt
import pytest

from app.engine.batch import Batcher, Computed, ComputeFailed, Computing, Turn, Waiting, take, turn
from models.runtime import Outputs

Pixels = npt.NDArray[np.uint8]


def image(value: int) -> Pixels:
    return np.full((2, 2, 1), value, dtype=np.uint8)


async def waiting(*values: int, deadline: float = 10.0) -> deque[Waiting]:
    loop = asyncio.get_running_loop()
    return deque(Waiting(image(value), since=0.0, deadline=deadline, answer=loop.create_future()) for value in values)


def values(batch: list[Waiting]) -> list[int]:
    return [int(each.image[0, 0, 0]) for each in batch]


def test_a_batch_is_the_oldest_images_up_to_its_size() -> None:
    async def main() -> None:
        queue = await waiting(1, 2, 3, 4, 5)
        assert values(take(queue, max_batch=3, now=0.0)) == [1, 2, 3]
        assert values(take(queue, max_batch=3, now=0.0)) == [4, 5]
        assert take(queue, max_batch=3, now=0.0) == []

    asyncio.run(main())


def test_who_is_gone_or_late_takes_no_place_in_a_batch() -> None:
    async def main() -> None:
        queue = await waiting(1, 2, 3)
        queue.extend(await waiting(4, deadline=1.0))
        queue.extend(await waiting(5, 6))
        queue[1].answer.cancel()
        assert values(take(queue, max_batch=3, now=1.0)) == [1, 3, 5]
        assert values(take(queue, max_batch=3, now=1.0)) == [6]

    asyncio.run(main())


class Device:
    """Echoes each image's value as its logit, one batch per `release`, and remembers the batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.started = threading.Semaphore(0)
        self._go = threading.Semaphore(0)

    def release(self, batches: int = 1) -> None:
        self._go.release(batches)

    def __call__(self, images: Pixels) -> Outputs:
        self.batches.append([int(each[0, 0, 0]) for each in images])
        self.started.release()
        assert self._go.acquire(timeout=20)
        if 13 in self.batches[-1]:
            raise RuntimeError("out of memory")
        value = images[:, 0, 0].astype(np.float32)
        return Outputs(logits=value, embedding=value + 1)


def with_batcher(test: Callable[[Batcher, Device], Awaitable[None]], *, max_batch: int = 4) -> None:
    async def main() -> None:
        device = Device()
        batcher = Batcher(Computing(wide=device, max_batch=max_batch))
        try:
            async with asyncio.timeout(20):
                await test(batcher, device)
        finally:
            device.release(100)

    asyncio.run(main())


def submit(batcher: Batcher, value: int, *, seconds: float = 60.0, first: bool = False) -> asyncio.Task[Computed]:
    deadline = asyncio.get_running_loop().time() + seconds
    return asyncio.create_task(batcher.submit(image(value), deadline=deadline, first=first))


async def started(device: Device) -> None:
    await asyncio.to_thread(device.started.acquire)


def test_an_idle_device_takes_one_image_at_once_and_then_what_arrived_while_it_worked() -> None:
    async def test(batcher: Batcher, device: Device) -> None:
        tasks = [submit(batcher, 1)]
        await started(device)  # nothing but the one image is there: it did not wait for others
        tasks += [submit(batcher, value) for value in (2, 3, 4, 5, 6, 7)]
        await asyncio.sleep(0)
        device.release(3)
        answers = await asyncio.gather(*tasks)
        assert device.batches == [[1], [2, 3, 4, 5], [6, 7]]
        assert [int(each.logits[0]) for each in answers] == [1, 2, 3, 4, 5, 6, 7]
        assert answers[0].began < answers[1].began < answers[5].began
        assert answers[1].compute_ms > 0

    with_batcher(test)


def test_an_image_whose_client_left_or_whose_time_is_over_is_never_computed() -> None:
    async def test(batcher: Batcher, device: Device) -> None:
        busy = submit(batcher, 1)
        await started(device)
        gone, late, patient = submit(batcher, 2), submit(batcher, 3, seconds=0.0), submit(batcher, 4)
        await asyncio.sleep(0)
        gone.cancel()
        device.release(2)
        await asyncio.gather(busy, patient)
        assert device.batches == [[1], [4]]
        late.cancel()

    with_batcher(test)


def test_a_ping_waits_for_the_running_batch_only() -> None:
    async def test(batcher: Batcher, device: Device) -> None:
        tasks = [submit(batcher, 1)]
        await started(device)
        tasks += [submit(batcher, value) for value in (2, 3, 4)]
        await asyncio.sleep(0)
        tasks.append(submit(batcher, 99, first=True))
        await asyncio.sleep(0)
        device.release(5)
        await asyncio.gather(*tasks)
        assert device.batches == [[1], [99, 2], [3, 4]]
        await submit(batcher, 99, first=True)
        assert dict(batcher.sizes) == {1: 2, 2: 1}  # of clients' images

    with_batcher(test, max_batch=2)


def test_a_device_error_is_the_error_of_its_batch_and_of_no_other() -> None:
    async def test(batcher: Batcher, device: Device) -> None:
        tasks = [submit(batcher, 13)]
        await started(device)
        tasks.append(submit(batcher, 2))
        device.release(2)
        failed, fine = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(failed, ComputeFailed)
        assert isinstance(fine, Computed)

    with_batcher(test)


def test_the_queue_is_counted_in_images_not_in_requests() -> None:
    """Two requests of three images each fill a batch of four and leave two."""

    async def test(batcher: Batcher, device: Device) -> None:
        tasks = [submit(batcher, 1)]
        await started(device)
        tasks += [submit(batcher, value) for request in ((20, 21, 22), (30, 31, 32)) for value in request]
        await asyncio.sleep(0)
        device.release(3)
        await asyncio.gather(*tasks)
        assert device.batches[1:] == [[20, 21, 22, 30], [31, 32]]

    with_batcher(test)


def test_images_are_made_in_the_thread_that_computes_them_and_one_that_cannot_be_is_none() -> None:
    async def test(batcher: Batcher, device: Device) -> None:
        device.release(100)
        threads = set()

        def made(value: int | None) -> Pixels | None:
            threads.add(threading.current_thread().name)
            return None if value is None else image(value)

        deadline = asyncio.get_running_loop().time() + 60
        tasks = [batcher.make(partial(made, value), deadline=deadline) for value in (1, None, 2)]
        first, none, second = await asyncio.gather(*tasks)
        assert first is not None
        assert second is not None
        assert (int(first.logits[0]), none, int(second.logits[0])) == (1, None, 2)
        assert device.batches == [[1, 2]]
        assert await batcher.make(partial(made, None), deadline=deadline) is None
        assert dict(batcher.sizes) == {2: 1}  # of nothing there is no batch
        assert threads == {"wide_0"}

    with_batcher(test)


def test_a_lone_image_that_is_quick_needs_no_thread_and_a_crowd_has_them() -> None:
    async def main() -> None:
        where: list[tuple[int, bool]] = []

        def compute(images: Pixels) -> Outputs:
            where.append((len(images), threading.current_thread() is threading.main_thread()))
            if images[0, 0, 0, 0] == 13:
                raise RuntimeError("out of memory")
            value = images[:, 0, 0].astype(np.float32)
            return Outputs(logits=value, embedding=value)

        batcher = Batcher(Computing(wide=compute, narrow=compute, streams=2, quick=True))
        assert int((await submit(batcher, 1)).logits[0]) == 1
        with pytest.raises(ComputeFailed):
            await submit(batcher, 13)
        assert where == [(1, True)] * 2
        await asyncio.gather(*(submit(batcher, value) for value in range(4)))
        assert where[2:] == [(2, False)] * 2
        assert int((await submit(batcher, 2)).logits[0]) == 2
        assert where[4:] == [(1, True)]
        assert dict(batcher.sizes) == {1: 2, 2: 2}

    asyncio.run(main())


def test_where_no_batch_can_be_started_nobody_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ValueError("a mistake of ours")

    async def test(batcher: Batcher, device: Device) -> None:
        device.release(100)
        with monkeypatch.context() as patched:
            patched.setattr("app.engine.batch.turn", broken)
            both = await asyncio.gather(submit(batcher, 1), submit(batcher, 2), return_exceptions=True)
        assert [type(each) for each in both] == [ComputeFailed] * 2
        assert int((await submit(batcher, 3)).logits[0]) == 3

    with_batcher(test)


def test_where_there_is_no_thread_for_a_batch_its_images_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(batcher: Batcher, device: Device) -> None:
        device.release(100)

        def no_thread(*_: object) -> None:
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patched:
            patched.setattr(batcher._wide, "submit", no_thread)
            both = await asyncio.gather(submit(batcher, 1), submit(batcher, 2), return_exceptions=True)
        assert [type(each) for each in both] == [ComputeFailed] * 2
        assert int((await submit(batcher, 3)).logits[0]) == 3

    with_batcher(test)


@pytest.mark.parametrize("size", [1, 7, 300])
def test_every_image_is_answered_with_its_own_numbers(size: int) -> None:
    async def test(batcher: Batcher, device: Device) -> None:
        device.release(1000)
        tasks = [submit(batcher, value % 13) for value in range(size)]
        assert [int((await task).logits[0]) for task in tasks] == [value % 13 for value in range(size)]

    with_batcher(test, max_batch=32)


def due(computing: Computing, **now: int) -> Turn | None:
    state = {"waiting": 0, "present": 0, "running": 0, "wide": 0, "waited": 0} | now
    return turn(
        computing,
        waiting=state["waiting"],
        present=state["present"],
        running=state["running"],
        wide=bool(state["wide"]),
        waited=state["waited"] / 1000,
    )


def nothing(images: npt.NDArray[np.uint8]) -> Outputs:
    raise AssertionError("only turns are asked for")


TWO_CORES = Computing(wide=nothing, narrow=nothing, streams=2, max_batch=8)


def test_a_lone_image_gets_all_cores_and_a_crowd_one_each() -> None:
    assert due(TWO_CORES, waiting=1, present=1) == Turn(wide=True, sizes=(1,))
    assert due(TWO_CORES, waiting=1, present=0) == Turn(wide=True, sizes=(1,))  # a ping, which is no client's
    assert due(TWO_CORES, waiting=1, present=2) == Turn(wide=False, sizes=(1,))  # another is being decoded
    assert due(TWO_CORES, waiting=2, present=2) == Turn(wide=False, sizes=(1, 1))
    assert due(TWO_CORES, waiting=5, present=5) == Turn(wide=False, sizes=(3, 2))
    assert due(TWO_CORES, waiting=100, present=100) == Turn(wide=False, sizes=(8, 8))


def test_a_core_that_is_free_never_waits_for_another_but_one_that_computes_is_left_alone() -> None:
    assert due(TWO_CORES, waiting=3, present=9, running=1) == Turn(wide=False, sizes=(3,))
    assert due(TWO_CORES, waiting=3, present=9, running=2) is None
    assert due(TWO_CORES, waiting=1, present=2, running=1, wide=1) is None
    assert due(TWO_CORES, waiting=1, present=1, running=1) == Turn(wide=False, sizes=(1,))
    assert due(TWO_CORES) is None


def test_a_full_batch_is_in_hand_for_the_core_that_ends_next() -> None:
    assert due(TWO_CORES, waiting=9, present=25, running=2) == Turn(wide=False, sizes=(8,))
    assert due(TWO_CORES, waiting=7, present=23, running=2) is None  # it may still grow
    assert due(TWO_CORES, waiting=9, present=33, running=3) is None
    assert due(TWO_CORES, waiting=9, present=10, running=1, wide=1) is None


def test_an_undivided_device_takes_what_gathered() -> None:
    gpu = Computing(wide=nothing, max_batch=8)
    assert due(gpu, waiting=1, present=9) == Turn(wide=True, sizes=(1,))
    assert due(gpu, waiting=20, present=20) == Turn(wide=True, sizes=(8,))
    assert due(gpu, waiting=20, present=20, running=1, wide=1) is None


def test_a_batch_waits_for_more_only_while_another_is_computed_and_no_longer_than_it_may() -> None:
    patient = Computing(wide=nothing, narrow=nothing, streams=2, max_batch=8, max_delay=0.005)
    assert due(patient, waiting=2, present=3, running=1, waited=4) is None
    assert due(patient, waiting=2, present=3, running=1, waited=5) == Turn(wide=False, sizes=(2,))
    assert due(patient, waiting=8, present=9, running=1, waited=0) == Turn(wide=False, sizes=(8,))  # a full one
    assert due(patient, waiting=2, present=2, waited=0) == Turn(wide=False, sizes=(1, 1))  # an idle device


def test_streams_compute_at_the_same_time_and_a_new_device_takes_over_between_batches() -> None:
    async def test(batcher: Batcher, device: Device) -> None:
        batcher.use(Computing(wide=nothing, narrow=device, streams=2, max_batch=1))
        batcher.watch(lambda: 9)
        first = [submit(batcher, 1), submit(batcher, 2)]
        await started(device)
        await started(device)  # both run, neither was released
        other = Device()
        batcher.use(Computing(wide=nothing, narrow=other, streams=2, max_batch=1))
        third = submit(batcher, 3)
        device.release(2)
        await started(other)
        other.release()
        answers = await asyncio.gather(*first, third)
        assert [int(each.logits[0]) for each in answers] == [1, 2, 3]
        assert [int(each.embedding[0]) for each in answers] == [2, 3, 4]
        assert sorted(device.batches) == [[1], [2]]
        assert other.batches == [[3]]

    with_batcher(test)


def test_while_every_core_computes_nobody_looks_at_the_queue_again_and_again() -> None:
    async def test(batcher: Batcher, device: Device) -> None:
        looks = 0

        def present() -> int:
            nonlocal looks
            looks += 1
            return 9

        batcher.use(Computing(wide=nothing, narrow=device, streams=2, max_batch=1, max_delay=1e-9))
        batcher.watch(present)
        answers = [submit(batcher, 1), submit(batcher, 2)]
        await started(device)
        await started(device)
        answers.append(submit(batcher, 3))  # its delay is over, and no core is free
        before = looks
        for _ in range(100):
            await asyncio.sleep(0)  # one turn of the event loop
        assert looks - before <= 1
        device.release(3)
        assert [int((await each).logits[0]) for each in answers] == [1, 2, 3]

    with_batcher(test)


def test_a_delayed_batch_starts_by_itself_when_its_time_has_come() -> None:
    async def test(batcher: Batcher, device: Device) -> None:
        batcher.use(Computing(wide=nothing, narrow=device, streams=2, max_batch=8, max_delay=0.01))
        batcher.watch(lambda: 9)
        first = submit(batcher, 1)
        await started(device)
        second = submit(batcher, 2)
        await started(device)  # the first is still computed: nothing but the clock can have started this one
        device.release(2)
        assert [int((await each).logits[0]) for each in (first, second)] == [1, 2]

    with_batcher(test)
