"""Work that is done side by side, of which a failure ends the rest."""

import asyncio

import pytest

from app.engine.together import together


async def give(value: int) -> int:
    await asyncio.sleep(0)
    return value


def test_what_each_gives_comes_in_their_order_and_of_nothing_comes_nothing() -> None:
    async def main() -> None:
        assert await together([give(value) for value in range(5)]) == [0, 1, 2, 3, 4]
        assert await together([]) == []

    asyncio.run(main())


def test_a_lone_piece_of_work_needs_no_task() -> None:
    async def task() -> asyncio.Task[None] | None:
        return asyncio.current_task()

    async def main() -> None:
        assert await together([task()]) == [asyncio.current_task()]
        assert asyncio.current_task() not in await together([task(), task()])

    asyncio.run(main())


@pytest.mark.parametrize("way", ["it fails", "it is cancelled"])
def test_when_it_ends_without_an_answer_nothing_of_it_goes_on(way: str) -> None:
    ended: list[int] = []

    async def forever(number: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)  # an end may take a moment
            ended.append(number)

    async def fail() -> None:
        await asyncio.sleep(0.01)
        if way == "it fails":
            raise ValueError("of this one")
        await asyncio.Event().wait()

    async def main() -> None:
        asking = asyncio.create_task(together([forever(1), fail(), forever(2)]))
        await asyncio.sleep(0.02)
        if way == "it fails":
            with pytest.raises(ValueError, match="of this one"):
                await asking
        else:
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
        assert sorted(ended) == [1, 2]

    asyncio.run(main())
