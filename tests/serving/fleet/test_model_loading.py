"""Loading as a client asks for it: the fleet is asked whether or not the client waits, and once however many do."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import orjson
import pytest
from serving_toys import make_artifact

from app.inference.fleet import FleetClient
from app.problems import ConflictError, UnavailableError
from app.services.models import Models
from models.catalog import Catalog
from store.layout import Layout

READY = {"state": "ready", "socket": "nowhere", "reason": None, "device": "cpu", "runtime": None}


class StandIn:
    """A fleet that answers every line with `reply`, once it is let."""

    def __init__(self) -> None:
        self.reply: dict[str, object] = dict(READY)
        self.asked: asyncio.Queue[dict[str, object]] = asyncio.Queue()
        self.go = asyncio.Event()

    async def connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked.put_nowait(orjson.loads(await reader.readline()))
        await self.go.wait()
        writer.write(orjson.dumps(self.reply) + b"\n")
        writer.close()


def with_models(layout: Layout, folder: Path, test: Callable[[Models, StandIn], Awaitable[None]]) -> None:
    """The catalog has toy@1."""
    catalog = Catalog(layout.models)
    catalog.publish("toy", make_artifact(folder / "model", job="job_a", network=False), "job_a")

    async def main() -> None:
        fleet = StandIn()
        server = await asyncio.start_unix_server(fleet.connection, layout.fleet_socket)
        try:
            async with asyncio.timeout(20):
                await test(Models(catalog, FleetClient(layout)), fleet)
        finally:
            server.close()

    asyncio.run(main())


@pytest.mark.parametrize("wait", [0.0, 0.01])
def test_a_load_that_is_not_waited_for_reaches_the_fleet_and_goes_on(
    layout: Layout, tmp_path: Path, wait: float
) -> None:
    async def test(models: Models, fleet: StandIn) -> None:
        assert (await models.load("toy", wait=wait))["state"] == "starting"
        assert await fleet.asked.get() == {"op": "ensure", "model": "toy", "version": 1, "keep": True}
        for _ in range(3):
            assert (await models.load("toy", wait=wait))["state"] == "starting"
        assert fleet.asked.empty()  # they share what the first one asked
        fleet.go.set()
        loaded = await models.load("toy", wait=10)
        assert (loaded["state"], loaded["device"]) == ("ready", "cpu")

    with_models(layout, tmp_path, test)


def test_a_client_that_goes_away_ends_no_load(layout: Layout, tmp_path: Path) -> None:
    async def test(models: Models, fleet: StandIn) -> None:
        leaving = asyncio.create_task(models.load("toy", wait=10))
        await fleet.asked.get()
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        assert (await models.load("toy", wait=0.01))["state"] == "starting"
        assert fleet.asked.empty()  # it is being loaded
        fleet.go.set()
        assert (await models.load("toy", wait=10))["state"] == "ready"

    with_models(layout, tmp_path, test)


def test_where_no_fleet_answers_who_waits_is_told_and_nothing_is_left_behind(
    layout: Layout, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(models: Models, _: StandIn) -> None:
        layout.fleet_socket.unlink()
        with pytest.raises(UnavailableError):
            await models.load("toy", wait=10)
        assert models._loading == {}

    with_models(layout, tmp_path, test)
    assert caplog.records == []


def test_a_version_that_the_fleet_cannot_load_is_a_409_with_its_reason(layout: Layout, tmp_path: Path) -> None:
    async def test(models: Models, fleet: StandIn) -> None:
        fleet.reply = {"state": "failed", "reason": "weights.safetensors is damaged"}
        fleet.go.set()
        with pytest.raises(ConflictError) as refused:
            await models.load("toy")
        assert (refused.value.status, refused.value.code) == (409, "model_not_loadable")
        assert refused.value.detail == "toy@1 cannot be loaded: weights.safetensors is damaged."
        fleet.reply = dict(READY)
        assert (await models.load("toy"))["state"] == "ready"  # it is asked for again

    with_models(layout, tmp_path, test)
