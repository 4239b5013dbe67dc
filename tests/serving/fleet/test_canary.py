"""Canaries, shadows, loading and unloading by a real fleet, seen through the client and the services."""

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from serving_toys import FleetProcess, alive, picture
from waiting import wait_for

from app.inference.client import Engines
from app.inference.fleet import FleetClient
from app.inference.shadow import Shadowed
from app.problems import ConflictError, NotFoundError
from app.services.models import Models
from models.aliases import Canary, Shadow

StartFleet = Callable[..., FleetProcess]


def test_a_canary_gets_its_share_a_shadow_its_copies_and_nothing_is_dropped_when_they_move(
    fleet: StartFleet, artifacts: list[Path]
) -> None:
    running = fleet()
    for number in (1, 2):
        running.catalog.publish("toy", artifacts[number], f"job_{number}")
    running.ready("toy", 1)

    async def main() -> None:
        engines = Engines(running.layout, running.settings)
        told: list[Shadowed] = []
        engines.shadows.watch = told.append
        seen: list[int] = []
        stop = asyncio.Event()

        async def ask() -> None:
            while not stop.is_set():
                seen.append((await engines.classify(None, [picture()], top_k=1, timeout=60)).version)

        async def until(condition: Callable[[], bool]) -> None:
            await asyncio.to_thread(wait_for, condition)

        asking = [asyncio.create_task(ask()) for _ in range(3)]
        put = running.catalog.put_alias
        put("toy", "production", version=1, canary=Canary(version=2, percent=40), shadow=Shadow(version=3))
        await until(lambda: 2 in seen and bool(told))
        assert set(seen) == {1, 2}
        first = seen.index(2)
        await until(lambda: len(seen) > first + 400)
        share = Counter(seen[first : first + 400])[2] / 400
        assert 0.25 < share < 0.55  # six standard deviations around 0.4
        assert {each.shadow for each in told} == {3}
        assert {each.version for each in told} == {1, 2}
        assert (await engines.classify("toy@1", [picture()], timeout=60)).version == 1
        put("toy", "production", version=2)  # promoted: it is loaded, and serves at once
        await until(lambda: seen[-50:] == [2] * 50)
        running.catalog.roll_back("toy", "production")
        await until(lambda: seen[-1] == 1)
        stop.set()
        await asyncio.gather(*asking)  # none of them was refused
        await engines.close()

    asyncio.run(main())
    wait_for(lambda: [each.version for each in running.routes().engines] == [1])
    assert running.routes().splits == {}


def test_a_version_is_loaded_when_that_is_asked_for_and_unloaded_with_its_process(
    fleet: StartFleet, artifacts: list[Path]
) -> None:
    running = fleet()
    running.catalog.publish("other", artifacts[1], "job_1")
    running.catalog.publish("other", artifacts[2], "job_2")
    running.ready("toy", 1)
    models = Models(running.catalog, FleetClient(running.layout))

    async def main() -> None:
        loaded = await models.load("other@1")
        assert (loaded["model"], loaded["version"], loaded["state"], loaded["device"]) == ("other", 1, "ready", "cpu")
        shown = (await models.get("other"))["loaded"]
        assert [(each["version"], each["state"]) for each in shown] == [(1, "ready")]
        pid = running.ready("other", 1).pid
        assert pid is not None
        assert (await models.unload("other@1"))["state"] == "unloaded"
        assert not alive(pid)
        assert (await models.unload("other@1"))["state"] == "unloaded"  # again, and nothing is left to do
        assert (await models.load("other@1", wait=0.01))["state"] == "starting"
        with pytest.raises(ConflictError, match="serves by default"):
            await models.unload("toy")
        with pytest.raises(NotFoundError):
            await models.load("nothing")
        running.catalog.put_alias("other", "production", version=1, shadow=Shadow(version=2))
        await asyncio.to_thread(running.ready, "other", 2)
        with pytest.raises(ConflictError, match="shares its requests with it"):
            await models.unload("other@2")

    asyncio.run(main())
