"""Unloading through /v2: what goes, what comes back by itself, what stays."""

from collections.abc import Callable
from pathlib import Path

import httpx
from edge_process import edge_over
from serving_toys import FleetProcess, alive, picture

from models.aliases import Shadow
from store import redis_account
from store.layout import Layout

StartFleet = Callable[..., FleetProcess]
ONE_IMAGE = {"Inference-Header-Content-Length": "0"}


def test_a_bare_name_takes_all_its_versions_which_come_back_when_asked_and_what_is_needed_stays(
    fleet: StartFleet, artifacts: list[Path], redis_server: Layout
) -> None:
    running = fleet()
    for number in (1, 2):
        running.catalog.publish("other", artifacts[number], f"job_{number}")
    running.catalog.set_alias("other", "production", 1)
    with (
        edge_over(running, redis_account.url(redis_server)) as (url, _),
        httpx.Client(base_url=f"http://{url}/v2", timeout=60) as http,
    ):

        def change(ref: str, verb: str) -> int:
            return http.post(f"/repository/models/{ref}/{verb}").status_code

        def ready() -> set[tuple[str, str]]:
            return {
                (each["name"], each["version"]) for each in http.post("/repository/index", json={"ready": True}).json()
            }

        running.ready("toy", 1)
        assert [change(ref, "load") for ref in ("other", "other@2")] == [200, 200]
        assert ready() == {("toy", "1"), ("other", "1"), ("other", "2")}
        assert change("other@2", "unload") == 200
        assert ready() == {("toy", "1"), ("other", "1")}
        assert change("other@2", "load") == 200
        pids = [each.pid or 0 for each in running.routes().engines if each.model == "other"]
        assert change("other", "unload") == 200  # an alias that is in use serves version 1
        assert ready() == {("toy", "1")}
        assert len(pids) == 2
        assert not any(alive(pid) for pid in pids)
        assert http.post("/models/other/infer", content=picture(), headers=ONE_IMAGE).status_code == 200
        assert ready() == {("toy", "1"), ("other", "1")}
        assert change("toy", "unload") == 409
        running.catalog.put_alias("other", "production", version=1, shadow=Shadow(version=2))
        running.ready("other", 2)
        assert change("other@2", "unload") == 409
        assert ready() == {("toy", "1"), ("other", "1"), ("other", "2")}
