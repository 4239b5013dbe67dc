"""What a fleet serves that is started anew, or meets a new version that cannot be loaded."""

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from serving_toys import FleetProcess, make_artifact, picture, with_client
from waiting import wait_for

from app.fleet.proven import Proven
from app.inference.client import Engines
from app.inference.errors import EngineUnavailable
from app.inference.fleet import FleetClient
from app.inference.routes import EngineState
from store.layout import Layout

StartFleet = Callable[..., FleetProcess]


async def version(engines: Engines, ref: str) -> int:
    return (await engines.classify(ref, [picture()], top_k=1, timeout=60)).version


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A version whose weights are not those of its manifest, made by job_b."""
    folder = make_artifact(tmp_path / "broken", job="job_b", seed=5)
    weights = bytearray((folder / "weights.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "weights.safetensors").write_bytes(weights)
    return folder


def move(fleet: FleetProcess, name: str, artifact: Path, job: str) -> int:
    """Publish a version and make it the model's production."""
    number = fleet.catalog.publish(name, artifact, job)
    fleet.catalog.set_alias(name, "production", number)
    return number


def failed(fleet: FleetProcess, name: str, number: int) -> Callable[[], bool]:
    def look() -> bool:
        route = fleet.routes().engine(name, number)
        return route is not None and route.state is EngineState.FAILED

    return look


def ready_anew(fleet: FleetProcess, number: int, before: int | None) -> None:
    """Wait until a version of toy serves by another process than the one that a killed fleet had."""
    wait_for(lambda: fleet.ready("toy", number).pid != before)


def test_a_fleet_that_is_started_anew_serves_what_is_proven_while_the_newest_version_is_broken(
    fleet: StartFleet, layout: Layout, artifacts: list[Path], broken: Path
) -> None:
    async def test(engines: Engines) -> None:
        assert (await version(engines, "toy"), await version(engines, "other")) == (1, 1)

    first = fleet()
    first.catalog.publish("other", artifacts[1], "job_1")
    with_client(first, test)
    assert [move(first, name, broken, "job_b") for name in ("toy", "other")] == [2, 2]
    wait_for(failed(first, "toy", 2))
    wait_for(failed(first, "other", 2))
    before = first.ready("toy", 1).pid
    first.process.kill()  # with its engines, and nothing is put in order
    first.process.wait()

    second = FleetProcess(layout)
    try:
        ready_anew(second, 1, before)
        with_client(second, test)
        wait_for(failed(second, "toy", 2))  # it is tried again, and serves nothing
        wait_for(failed(second, "other", 2))
        with_client(second, test)
    finally:
        assert second.stop() == 0
    shutil.rmtree(layout.run)  # the machine, too: this place may be in memory
    layout.create()

    third = FleetProcess(layout)
    try:
        third.ready("toy", 1)
        with_client(third, test)
        assert move(third, "toy", artifacts[2], "job_2") == 3
        wait_for(lambda: third.routes().aliases["toy"] == {"production": 3})
        before = third.ready("toy", 3).pid
    finally:
        third.process.kill()
        third.process.wait()

    fourth = FleetProcess(layout)
    try:
        ready_anew(fourth, 3, before)
        assert [each.version for each in fourth.routes().engines] == [3]  # what is proven is all that is loaded
    finally:
        fourth.stop()


def test_what_a_client_had_loaded_is_loaded_again_after_a_crash_and_what_a_request_needed_is_not(
    fleet: StartFleet, layout: Layout, artifacts: list[Path]
) -> None:
    async def load(engines: Engines) -> None:
        assert (await FleetClient(layout).load("other", 2))["state"] == "ready"
        assert await version(engines, "other") == 1

    first = fleet()
    for number in (1, 2):
        first.catalog.publish("other", artifacts[number], f"job_{number}")
    first.catalog.set_alias("other", "production", 1)
    first.ready("toy", 1)
    with_client(first, load)
    before = first.ready("other", 2).pid
    first.process.kill()
    first.process.wait()

    second = FleetProcess(layout)
    try:
        wait_for(lambda: second.ready("other", 2).pid != before)
        second.ready("toy", 1)
        assert {(each.model, each.version) for each in second.routes().engines} == {("toy", 1), ("other", 2)}
        assert Proven(layout.served).loaded == {("other", 2)}

        async def unload(_: Engines) -> None:
            assert (await FleetClient(layout).unload("other", 2))["state"] == "unloaded"

        with_client(second, unload)
    finally:
        second.process.kill()
        second.process.wait()
    assert Proven(layout.served).loaded == set()


def test_where_an_idle_models_new_version_is_broken_the_one_that_served_is_back_after_one_refusal(
    fleet: StartFleet, artifacts: list[Path], broken: Path
) -> None:
    running = fleet()
    running.catalog.publish("other", artifacts[1], "job_1")

    async def test(engines: Engines) -> None:
        assert await version(engines, "other") == 1
        assert (await FleetClient(running.layout).unload("other", 1))["state"] == "unloaded"
        move(running, "other", broken, "job_b")
        with pytest.raises(EngineUnavailable, match="other@2 cannot be served"):
            await version(engines, "other")
        await asyncio.to_thread(wait_for, lambda: running.routes().aliases.get("other") == {"production": 1})
        assert await version(engines, "other") == 1

    with_client(running, test)
