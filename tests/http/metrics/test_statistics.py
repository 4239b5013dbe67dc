"""Statistics of models in Triton's shape, from what the HTTP processes count and what engines tell."""

import asyncio
from pathlib import Path
from unittest.mock import AsyncMock
from uuid import uuid4

import httpx
import pytest
from edge_kit import Server, model_on_disk

from app.inference.client import Engines
from app.inference.figures import Asked, EngineFigures
from app.metrics import Metrics
from app.services import statistics_v2
from app.services.statistics_v2 import Statistics, entry
from app.version_metrics import Counted
from store.layout import Layout
from store.settings import Settings

STAGES = {"decode": 2, "queue": 4, "compute": 8, "total": 15}


class ToldEngines(Engines):
    """Engines that say how many batches they have computed, and count how often they are asked."""

    def __init__(self, folder: Path) -> None:
        layout = Layout(folder).create()
        super().__init__(layout, Settings(data=layout.root))
        self.asked = 0

    async def figures(self) -> list[EngineFigures]:
        self.asked += 1
        await asyncio.sleep(0.05)
        return [
            EngineFigures("cats", 3, ready=True, restarts=0, waiting=0, batches={1: 4, 8: 1}, process="a"),
            EngineFigures("dogs", 1, ready=False, restarts=0),
        ]


def test_an_entry_has_the_shape_of_tritons_and_zeros_for_what_is_not_measured() -> None:
    seconds = {"queue": (3, 0.25), "decode": (3, 0.5), "compute": (3, 1.0)}
    counted = Counted(answered=3, failed=2, failed_seconds=0.75, images=9, seconds=seconds, last=1769860800.1234)
    assert entry("cats", "3", counted, batches={8: 1, 1: 4}) == {
        "name": "cats",
        "version": "3",
        "last_inference": 1769860800123,
        "inference_count": 9,
        "execution_count": 5,
        "inference_stats": {
            "success": {"count": 3, "ns": 1_750_000_000},
            "fail": {"count": 2, "ns": 750_000_000},
            "queue": {"count": 3, "ns": 250_000_000},
            "compute_input": {"count": 3, "ns": 500_000_000},
            "compute_infer": {"count": 3, "ns": 1_000_000_000},
            "compute_output": {"count": 0, "ns": 0},
            "cache_hit": {"count": 0, "ns": 0},
            "cache_miss": {"count": 0, "ns": 0},
        },
        "batch_stats": [
            {
                "batch_size": size,
                "compute_input": {"count": 0, "ns": 0},
                "compute_infer": {"count": count, "ns": 0},
                "compute_output": {"count": 0, "ns": 0},
            }
            for size, count in ((1, 4), (8, 1))
        ],
    }


def test_one_look_is_told_to_all_who_ask_meanwhile_also_where_the_first_of_them_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        engines, metrics = ToldEngines(tmp_path), Metrics()
        statistics = Statistics(engines)
        leaving = asyncio.create_task(statistics.of([("cats", 3)], metrics))
        await asyncio.sleep(0.01)
        leaving.cancel()
        versions = [("cats", 3), ("dogs", 1), ("frogs", 1)]
        answers = await asyncio.gather(*(statistics.of(versions, metrics) for _ in range(5)))
        assert engines.asked == 1
        assert all(each == answers[0] for each in answers)
        assert [each["execution_count"] for each in answers[0]["model_stats"]] == [5, 0, 0]
        monkeypatch.setattr(statistics_v2, "_FRESH_SECONDS", 0.0)
        metrics.versions.count(Asked("cats", 3, "classify", "answered", 2, 0, STAGES))
        (again,) = (await statistics.of([("cats", 3)], metrics))["model_stats"]
        assert (engines.asked, again["inference_count"]) == (2, 2)
        await engines.close()

    asyncio.run(main())


def test_of_a_version_whose_figures_were_given_up_nothing_is_told(tmp_path: Path) -> None:
    async def main() -> None:
        engines, metrics = ToldEngines(tmp_path), Metrics()
        for version in range(1, 301):
            metrics.versions.count(Asked("frogs", version, "classify", "answered", 2, 0, STAGES))
        told = await Statistics(engines).of([("frogs", 1), ("frogs", 300), ("newts", 1)], metrics)
        assert [(each["name"], each["version"], each["inference_count"]) for each in told["model_stats"]] == [
            ("frogs", "300", 2)
        ]
        await engines.close()

    asyncio.run(main())


def test_batches_of_an_engine_that_ended_are_not_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics_v2, "_FRESH_SECONDS", 0.0)

    async def main() -> None:
        engines, metrics = ToldEngines(tmp_path), Metrics()
        statistics = Statistics(engines)
        seen = []
        for process, batches in (("a", {1: 4, 8: 1}), ("b", {}), ("b", {8: 2})):
            engine = EngineFigures("cats", 3, ready=True, restarts=0, waiting=0, batches=batches, process=process)
            monkeypatch.setattr(engines, "figures", AsyncMock(return_value=[engine]))
            (told,) = (await statistics.of([("cats", 3)], metrics))["model_stats"]
            sizes = {each["batch_size"]: each["compute_infer"]["count"] for each in told["batch_stats"]}
            seen.append((told["execution_count"], sizes))
        assert seen == [(5, {1: 4, 8: 1}), (5, {1: 4, 8: 1}), (7, {1: 4, 8: 3})]
        await engines.close()

    asyncio.run(main())


def stats(http: httpx.Client, path: str) -> dict[tuple[str, str], int]:
    """(model, version) → its images."""
    answer = http.get(path)
    assert answer.status_code == 200, answer.text
    return {(each["name"], each["version"]): each["inference_count"] for each in answer.json()["model_stats"]}


def test_they_are_of_a_version_of_a_model_or_of_all(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics_v2, "_FRESH_SECONDS", 0.0)
    name, quiet = (f"m-{uuid4().hex[:8]}" for _ in range(2))
    for each in (name, quiet):
        model_on_disk(server.layout, each, f"job_{each}")
    server.state.metrics.versions.count(Asked(name, 1, "classify", "answered", 4, 0, STAGES))
    every = stats(server.http, "/v2/models/stats")
    assert (every[name, "1"], every[quiet, "1"]) == (4, 0)
    for path in (f"/v2/models/{name}/stats", f"/v2/models/{name}/versions/1/stats", f"/v2/models/{name}@1/stats"):
        assert stats(server.http, path) == {(name, "1"): 4}
    for path in ("/v2/models/absent/stats", f"/v2/models/{name}/versions/2/stats"):
        assert server.http.get(path).status_code == 404


def test_a_configuration_says_what_the_metadata_says(server: Server) -> None:
    name = f"m-{uuid4().hex[:8]}"
    model_on_disk(server.layout, name, f"job_{name}")
    config, metadata = (server.http.get(f"/v2/models/{name}{path}").json() for path in ("/config", ""))
    assert (config["name"], config["max_batch_size"]) == (name, server.state.settings.max_images_per_request)
    for ours, theirs in (("input", "inputs"), ("output", "outputs")):
        shapes = [(each["name"], [-1, *each["dims"]]) for each in config[ours]]
        assert shapes == [(each["name"], each["shape"]) for each in metadata[theirs]]
    assert [each["data_type"] for each in config["input"]] == ["TYPE_STRING", "TYPE_UINT8", "TYPE_FP32"]
    assert server.http.get(f"/v2/models/{name}/versions/1/config").json() == config
