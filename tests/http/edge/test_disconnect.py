"""Work for a client who may hang up meanwhile: dropped then, and only then."""

import asyncio

import pytest
from starlette.requests import ClientDisconnect, Request

from app.disconnect import unless_gone


class Client:
    """The end of a connection from which nothing comes until `gone` is set."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()
        self.work_was_dropped = False
        self.request = Request({"type": "http"}, self._receive)

    async def _receive(self) -> dict[str, str]:
        await self.gone.wait()
        return {"type": "http.disconnect"}


async def ended(client: Client) -> str:
    """Works until it is dropped, and tells how."""
    client.gone.set()
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        client.work_was_dropped = True
        raise
    return "nobody dropped it"


def test_the_answer_comes_to_a_client_who_waits() -> None:
    async def main() -> None:
        client = Client()
        assert await unless_gone(client.request, asyncio.sleep(0, "answer")) == "answer"
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    asyncio.run(main())


def test_work_for_who_has_gone_is_dropped_and_its_task_goes_on() -> None:
    async def main() -> None:
        client = Client()
        with pytest.raises(ClientDisconnect):
            await unless_gone(client.request, ended(client))
        assert client.work_was_dropped
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        with pytest.raises(ClientDisconnect):  # who was gone before it began
            await unless_gone(client.request, asyncio.sleep(60))

    asyncio.run(main())


def test_a_timeout_of_the_work_and_a_cancelled_request_are_what_they_were() -> None:
    async def late() -> None:
        raise TimeoutError("its own")

    async def main() -> None:
        client = Client()
        with pytest.raises(TimeoutError, match="its own"):
            await unless_gone(client.request, late())
        working = asyncio.create_task(unless_gone(client.request, asyncio.sleep(60)))
        await asyncio.sleep(0)
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working

    asyncio.run(main())


def test_an_answer_that_comes_as_its_client_leaves_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """The disconnect is told in the same turn of the loop in which the work ends, before or after it."""

    async def main() -> None:
        for turns in range(8):
            client = Client()

            async def work(client: Client = client, turns: int = turns) -> str:
                asyncio.get_running_loop().call_soon(client.gone.set)
                for _ in range(turns):
                    await asyncio.sleep(0)
                return "answer"

            outcome = (await asyncio.gather(unless_gone(client.request, work()), return_exceptions=True))[0]
            assert outcome == "answer" or isinstance(outcome, ClientDisconnect)
            await asyncio.sleep(0)

    asyncio.run(main())
    assert not caplog.records  # asyncio logs what a callback raises
