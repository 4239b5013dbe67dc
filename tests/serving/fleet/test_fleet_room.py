"""Which engines a fleet lets go when as many are loaded as may be. Stand-ins for engines are ready at once."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from serving_toys import make_artifact

from app.fleet.again import load_again
from app.fleet.fleet import Fleet
from app.fleet.proven import Proven
from app.inference.routes import EngineState, Route, RoutesFile, Split
from models.aliases import Canary
from models.catalog import Catalog, ModelNotFound
from store.layout import Layout
from store.settings import Settings

Key = tuple[str, int]


class Stand:
    """An engine without a process."""

    def __init__(self, *, model: str, version: int, **_: object) -> None:
        self.model, self.version = model, version
        self.state = EngineState.READY
        self.idle_seconds = 1.0
        self.may_go = True

    @property
    def route(self) -> Route:
        return Route(model=self.model, version=self.version, state=self.state, socket="nowhere", device="cpu")

    async def settle(self) -> Route:
        return self.route

    async def drain(self) -> None:
        self.state = EngineState.DRAINING

    async def stop(self, *, seconds: float) -> None:
        pass


class Scene:
    """A fleet with place for two engines, whose default model is toy, and what it is told by its catalog."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.catalog = Catalog(layout.models)
        self.fleet = Fleet(layout, Settings(data=layout.root, model="toy", device="cpu", max_engines=2))
        self._table = RoutesFile(layout.routes)

    @property
    def loaded(self) -> set[Key]:
        return set(self.fleet._engines)

    @property
    def splits(self) -> dict[str, dict[str, Split]]:
        return self._table.read().splits

    @property
    def aliases(self) -> dict[str, dict[str, int]]:
        return self._table.read().aliases

    def engine(self, model: str, version: int) -> Any:
        return self.fleet._engines[model, version]

    def put(self, model: str, version: int, *, canary: int | None = None) -> None:
        """Make this the model's production, and have the fleet see it, and see that what it starts is ready."""
        shared = None if canary is None else Canary(version=canary, percent=10)
        self.catalog.put_alias(model, "production", version=version, canary=shared)
        for _ in range(2):
            self.fleet._reconcile()


@pytest.fixture
def with_fleet(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[[Scene], Awaitable[None]]], None]:
    """Run a test with a scene whose catalog has four versions of toy, of other and of third."""
    monkeypatch.setattr("app.fleet.fleet.Engine", Stand)
    monkeypatch.setattr("app.fleet.fleet._ROOM_POLL", 0.01)
    catalog = Catalog(layout.models)
    for name in ("toy", "other", "third"):
        for job in "abcd":
            artifact = make_artifact(tmp_path / name / job, job=f"job_{job}", network=False)
            catalog.publish(name, artifact, f"job_{job}")
        catalog.set_alias(name, "production", 1)

    def run(test: Callable[[Scene], Awaitable[None]]) -> None:
        async def main() -> None:
            scene = Scene(layout)
            try:
                async with asyncio.timeout(20):
                    await test(scene)
            finally:
                await scene.fleet.stop()

        asyncio.run(main())

    return run


WithFleet = Callable[[Callable[[Scene], Awaitable[None]]], None]


def test_what_no_alias_needs_any_more_goes_before_anything_makes_room_for_a_canary(with_fleet: WithFleet) -> None:
    async def test(scene: Scene) -> None:
        await scene.fleet.ensure("toy", 1)
        scene.put("toy", 1, canary=3)
        assert scene.loaded == {("toy", 1), ("toy", 3)}
        scene.put("toy", 3, canary=4)
        assert scene.loaded == {("toy", 3), ("toy", 4)}
        assert (scene.aliases["toy"]["production"], scene.splits["toy"]["production"].canary) == (3, 4)

    with_fleet(test)


def test_a_canary_takes_the_place_of_a_model_that_is_unused_and_never_that_of_the_version_it_is_beside(
    with_fleet: WithFleet,
) -> None:
    async def test(scene: Scene) -> None:
        await scene.fleet.ensure("toy", 1)
        await scene.fleet.ensure("other", 1)
        scene.put("other", 1, canary=2)
        assert scene.loaded == {("toy", 1), ("other", 1), ("other", 2)}  # one more than may be: it was asked for
        assert (scene.aliases["other"]["production"], scene.splits["other"]["production"].canary) == (1, 2)
        scene.put("other", 1)
        await scene.fleet.unload("other", 1)
        await scene.fleet.ensure("third", 1)
        scene.put("toy", 1, canary=2)
        assert scene.loaded == {("toy", 1), ("toy", 2)}

    with_fleet(test)


def test_a_version_that_is_deleted_while_it_waits_for_room_is_told_and_takes_nobodys_place(
    with_fleet: WithFleet, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(scene: Scene) -> None:
        await scene.fleet.ensure("toy", 1)
        await scene.fleet.ensure("other", 1)
        scene.engine("other", 1).may_go = False  # it is loaded for somebody
        waiting = asyncio.create_task(scene.fleet.ensure("third", 2))
        await asyncio.sleep(0.03)
        assert not waiting.done()
        scene.catalog.delete("third", 2)
        with pytest.raises(ModelNotFound):
            await waiting
        scene.engine("other", 1).may_go = True
        scene.fleet._reconcile()
        assert scene.loaded == {("toy", 1), ("other", 1)}

    with_fleet(test)
    assert [each.getMessage() for each in caplog.records] == []


def test_a_version_that_is_deleted_just_when_there_is_room_is_wanted_no_more(
    with_fleet: WithFleet, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(scene: Scene) -> None:
        def room() -> bool:
            scene.catalog.delete("third", 2)
            return True

        await scene.fleet.ensure("toy", 1)
        monkeypatch.setattr(scene.fleet, "_make_room", room)
        with pytest.raises(ModelNotFound):
            await scene.fleet.ensure("third", 2)
        for _ in range(3):
            scene.fleet._reconcile()
        assert scene.loaded == {("toy", 1)}
        assert scene.fleet._requested == set()

    with_fleet(test)
    assert [each.getMessage() for each in caplog.records] == ["a version that is wanted is gone"]


async def started_anew(scene: Scene) -> Scene:
    """The fleet that comes after this one was killed, when it has loaded what it is to."""
    after = Scene(scene.layout)
    after.fleet._reconcile()
    await load_again(after.fleet)
    return after


def test_what_a_client_had_loaded_is_remembered_until_it_is_unloaded_or_makes_room(with_fleet: WithFleet) -> None:
    async def test(scene: Scene) -> None:
        def remembered() -> set[Key]:
            return Proven(scene.layout.served).loaded

        await scene.fleet.ensure("toy", 1)
        await scene.fleet.ensure("other", 2)
        assert remembered() == set()  # a request needed it, and the next one loads it
        await scene.fleet.ensure("other", 2, keep=True)
        assert remembered() == {("other", 2)}
        await scene.fleet.ensure("third", 3, keep=True)
        assert remembered() == {("third", 3)}
        assert (await started_anew(scene)).loaded == {("toy", 1), ("third", 3)}
        await scene.fleet.unload("third", 3)
        assert remembered() == set()

    with_fleet(test)


def test_what_was_loaded_by_the_name_of_an_alias_is_what_the_alias_serves_by_now(with_fleet: WithFleet) -> None:
    async def test(scene: Scene) -> None:
        await scene.fleet.ensure("toy", 1)
        await scene.fleet.ensure("other", 1, keep=True)
        scene.put("other", 4)
        assert scene.loaded == {("toy", 1), ("other", 4)}
        after = await started_anew(scene)
        assert after.loaded == {("toy", 1), ("other", 4)}
        assert after.fleet._requested == set()  # it goes where the alias goes
        after.put("other", 3)
        assert after.loaded == {("toy", 1), ("other", 3)}

    with_fleet(test)


def test_what_cannot_be_loaded_again_is_told_and_forgotten(
    with_fleet: WithFleet, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(scene: Scene) -> None:
        known = Proven(scene.layout.served)
        known.loaded |= {("other", 2), ("third", 1), ("third", 4)}
        known.write()
        scene.catalog.delete("other", 2)
        after = await started_anew(scene)
        assert after.loaded == {("toy", 1), ("third", 1)}  # there is place for two
        assert Proven(scene.layout.served).loaded == {("third", 1)}

    with_fleet(test)
    told = [(each.model, each.version) for each in caplog.records if "not any more" in each.getMessage()]
    assert told == [("other", 2), ("third", 4)]


def test_a_version_whose_loading_ends_the_fleet_is_loaded_again_once(
    with_fleet: WithFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(scene: Scene) -> None:
        entered = asyncio.Event()

        async def endless(_: Stand) -> Route:
            entered.set()
            await asyncio.Event().wait()
            raise AssertionError

        await scene.fleet.ensure("toy", 1)
        await scene.fleet.ensure("other", 2, keep=True)
        after = Scene(scene.layout)
        after.fleet._reconcile()
        ready = Stand.settle
        monkeypatch.setattr(Stand, "settle", lambda it: endless(it) if it.model == "other" else ready(it))
        loading = asyncio.create_task(load_again(after.fleet))
        await entered.wait()
        assert Proven(scene.layout.served).loaded == set()
        loading.cancel()  # a fleet that is told to end has done nothing wrong
        await asyncio.gather(loading, return_exceptions=True)
        assert Proven(scene.layout.served).loaded == {("other", 2)}

    with_fleet(test)
