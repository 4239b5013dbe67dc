"""Figures of several HTTP processes as one, and what is told of engines; labels stay few."""

import ast
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from http_process import http_process
from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from app.inference.figures import Asked, EngineFigures
from app.inference.shadow import Shadowed
from app.metrics import Metrics, cumulative
from app.version_metrics import SECONDS
from store.layout import Layout

PAGE = Path(__file__).resolve().parents[3] / "docs" / "configuration.md"
COUNTING = """
from app.inference.figures import Asked
from app.metrics import Metrics

metrics = Metrics()
metrics.versions.count(Asked("cats", 3, "classify", "answered", 2, 1, {"decode": 2, "queue": 4, "compute": 8}))
metrics.versions.count(Asked("cats", 3, "classify", "lost"))
metrics.versions.count(Asked("dogs", 1, "infer", "overloaded"))
told, complete = metrics.versions.of_versions()
assert complete
print({names: (each.answered, each.failed, each.images) for names, each in told.items()})
"""


def samples(text: str) -> dict[tuple[str, ...], float]:
    """(name, label values …) → value."""
    families = text_string_to_metric_families(text)
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_any_process_tells_of_all_and_of_one_that_was_killed(layout: Layout, redis_url: str, tmp_path: Path) -> None:
    counting = tmp_path / "metrics"
    counting.mkdir()
    together = {"PROMETHEUS_MULTIPROC_DIR": str(counting)}
    with (
        http_process(layout, redis_url, **together) as (first, one),
        http_process(layout, redis_url, **together) as (_, other),
    ):
        for url, times in ((one, 2), (other, 3)):
            for _ in range(times):
                assert httpx.get(f"{url}/livez", timeout=60).status_code == 200
        livez = ("http_requests_total", "GET", "/livez", "200")
        assert samples(httpx.get(f"{other}/metrics", timeout=20).text)[livez] == 5
        told = samples(httpx.get(f"{one}/metrics", timeout=20).text)
        assert told[livez] == 5
        assert told["http_request_duration_seconds_count", "GET", "/livez"] == 5
        assert told["http_event_streams",] == 0
        assert len(list(counting.glob("gauge_livesum_*.db"))) == 2
        first.send_signal(signal.SIGKILL)
        first.wait()
        assert samples(httpx.get(f"{other}/metrics", timeout=20).text)[livez] == 5
        assert len(list(counting.glob("gauge_livesum_*.db"))) == 1  # its open streams are gone with it


def test_engines_tell_of_batches_their_sizes_what_waits_and_how_often_they_died() -> None:
    busy = EngineFigures("cats", 3, ready=True, restarts=2, waiting=7, batches={1: 10, 3: 2, 32: 1})
    dead = EngineFigures("dogs", 1, ready=False, restarts=5)
    told = samples(Metrics().render(jobs={"queued": 4}, engines=[busy, dead]).decode())
    assert told["jobs", "queued"] == 4
    assert told["inference_batches_total", "cats", "3"] == 13
    assert told["inference_batch_size_sum", "cats", "3"] == 48
    assert told["inference_batch_size_bucket", "2.0", "cats", "3"] == 10
    assert told["inference_batch_size_bucket", "4.0", "cats", "3"] == 12
    assert told["inference_batch_size_bucket", "+Inf", "cats", "3"] == 13
    assert told["inference_queue_depth", "cats", "3"] == 7
    assert told["inference_engine_restarts_total", "dogs", "1"] == 5
    assert (told["inference_engine_ready", "cats", "3"], told["inference_engine_ready", "dogs", "1"]) == (1, 0)
    assert ("inference_queue_depth", "dogs", "1") not in told  # unknown is not zero


def test_each_request_to_an_engine_is_counted_by_model_version_and_outcome() -> None:
    metrics = Metrics()
    metrics.versions.count(
        Asked("cats", 3, "classify", "answered", 2, 1, {"decode": 2, "queue": 4, "compute": 8, "total": 15})
    )
    metrics.versions.count(Asked("cats", 3, "classify", "overloaded"))
    told = samples(metrics.render(jobs={}, engines=[]).decode())
    assert told["inference_requests_total", "cats", "classify", "answered", "3"] == 1
    assert told["inference_requests_total", "cats", "classify", "overloaded", "3"] == 1
    assert told["inference_images_total", "cats", "classified", "3"] == 2
    assert told["inference_images_total", "cats", "rejected", "3"] == 1
    sums = [told[f"inference_{stage}_seconds_sum", "cats", "3"] for stage in ("decode", "queue", "compute")]
    assert sums == pytest.approx([0.002, 0.004, 0.008])


def test_what_was_counted_of_a_version_is_told_together() -> None:
    metrics = Metrics()
    assert metrics.versions.of_versions() == ({}, True)
    stages = {"decode": 2, "queue": 4, "compute": 8, "total": 15}
    metrics.versions.count(Asked("cats", 3, "classify", "answered", 2, 1, stages))
    metrics.versions.count(Asked("cats", 3, "infer", "answered", 5, 0, stages))
    metrics.versions.count(Asked("cats", 3, "classify", "overloaded"))
    metrics.versions.count(Asked("cats", 3, "infer", "lost", seconds=1.5))
    metrics.versions.count(Asked("dogs", 1, "classify", "cancelled", seconds=0.25))
    metrics.versions.count_shadowed(Shadowed("cats", 3, 4, {"agreed": 5}))
    told, complete = metrics.versions.of_versions()
    assert (set(told), complete) == ({("cats", "3"), ("dogs", "1")}, True)
    cats, dogs = told["cats", "3"], told["dogs", "1"]
    assert (cats.answered, cats.failed, cats.images) == (2, 2, 7)
    assert {stage: count for stage, (count, _) in cats.seconds.items()} == {"decode": 2, "queue": 2, "compute": 2}
    sums = {stage: seconds for stage, (_, seconds) in cats.seconds.items()}
    assert sums == pytest.approx({"decode": 0.004, "queue": 0.008, "compute": 0.016})
    assert abs(cats.last - time.time()) < 60
    assert (dogs.answered, dogs.failed, dogs.images, dogs.last) == (0, 1, 0, 0.0)
    assert (cats.failed_seconds, dogs.failed_seconds) == (1.5, 0.25)


@pytest.mark.parametrize("operation", ["explain", "preprocess"])
def test_explanations_and_previews_are_counted_as_requests_and_are_no_inferences(operation: str) -> None:
    metrics = Metrics()
    stages = {"decode": 2, "queue": 4, "compute": 0, "total": 15}
    metrics.versions.count(Asked("cats", 3, operation, "answered", 2, 1, stages))
    metrics.versions.count(Asked("cats", 3, operation, "lost", seconds=1.5))
    told = samples(metrics.render(jobs={}, engines=[]).decode())
    assert {key: count for key, count in told.items() if key[0].startswith("inference_")} == {
        ("inference_requests_total", "cats", operation, "answered", "3"): 1,
        ("inference_requests_total", "cats", operation, "lost", "3"): 1,
    }
    (cats,) = metrics.versions.of_versions()[0].values()
    assert (cats.answered, cats.failed, cats.failed_seconds, cats.images, cats.last) == (0, 0, 0.0, 0, 0.0)
    assert set(cats.seconds.values()) == {(0, 0.0)}


def test_a_histograms_buckets_are_those_that_the_client_library_makes() -> None:
    ours, theirs = Metrics(), Histogram("inference_queue_seconds", "", ("model", "version"), None, buckets=SECONDS)
    for seconds in (0.0, 0.001, 0.0011, 0.3, 30.0, 31.0):
        ours.versions.count(Asked("cats", 3, "classify", "answered", 1, 0, {"queue": seconds * 1000}))
        theirs.labels("cats", "3").observe(seconds)
    registry = CollectorRegistry()
    registry.register(theirs)
    expected = {
        key: count for key, count in samples(generate_latest(registry).decode()).items() if "_created" not in key[0]
    }
    told = samples(ours.render(jobs={}, engines=[]).decode())
    assert {key: count for key, count in told.items() if key[0].startswith("inference_queue_s")} == pytest.approx(
        expected
    )


def test_what_was_counted_of_a_version_is_of_all_processes(tmp_path: Path) -> None:
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    command = [sys.executable, "-c", COUNTING]
    told = [subprocess.run(command, env=environment, capture_output=True, check=True, text=True) for _ in range(2)]
    first, second = (ast.literal_eval(each.stdout) for each in told)
    assert first == {("cats", "3"): (1, 1, 2), ("dogs", "1"): (0, 1, 0)}
    assert second == {("cats", "3"): (2, 2, 4), ("dogs", "1"): (0, 2, 0)}


def documented() -> dict[str, tuple[str, set[str]]]:
    """Metric → its type and its labels, from the table of docs/configuration.md."""
    rows = re.findall(r"^\| `(\w+)` \| (counter|gauge|histogram) \| ([^|]*)\|", PAGE.read_text(), re.MULTILINE)
    return {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}


def test_every_metric_is_documented_with_its_type_and_labels_and_nothing_else_is() -> None:
    metrics = Metrics()
    metrics.requests.labels("GET", "/livez", "200").inc()
    metrics.duration.labels("GET", "/livez").observe(0.1)
    metrics.refused.labels("key").inc()
    metrics.versions.count(Asked("cats", 3, "classify", "answered", 2, 1, {"decode": 2, "queue": 4, "compute": 8}))
    metrics.versions.count(Asked("cats", 3, "classify", "lost", seconds=0.1))
    metrics.versions.count_shadowed(Shadowed("cats", 3, 4, {"agreed": 5}))
    engine = EngineFigures("cats", 3, ready=True, restarts=2, waiting=7, batches={1: 10})
    text = metrics.render(jobs={"queued": 4}, engines=[engine]).decode()
    found = {}
    for family in text_string_to_metric_families(text):
        if family.name.endswith("_created"):
            continue
        name = f"{family.name}_total" if family.type == "counter" else family.name
        found[name] = family.type, {label for sample in family.samples for label in sample.labels} - {"le"}
    assert documented() == found


def test_copies_for_a_shadow_are_counted_by_model_both_versions_and_outcome() -> None:
    metrics = Metrics()
    metrics.versions.count_shadowed(Shadowed("cats", 3, 4, {"agreed": 5, "disagreed": 2}))
    metrics.versions.count_shadowed(Shadowed("cats", 3, 4, {"agreed": 1}))
    metrics.versions.count_shadowed(Shadowed("cats", 3, 5, {"dropped": 7}))
    told = samples(metrics.render(jobs={}, engines=[]).decode())
    copies = {key[1:]: count for key, count in told.items() if key[0] == "inference_shadow_images_total"}
    assert copies == {  # labels in alphabetical order: model, outcome, shadow, version
        ("cats", "agreed", "4", "3"): 6,
        ("cats", "disagreed", "4", "3"): 2,
        ("cats", "dropped", "5", "3"): 7,
    }


def test_the_versions_with_figures_of_their_own_are_few_and_those_that_were_asked_last() -> None:
    metrics = Metrics()
    for version in range(1000):
        metrics.versions.count(Asked("cats", version, "classify", "answered", good=1))
        metrics.versions.count(Asked("dogs", 1, "classify", "answered", good=1))  # which goes on being asked
        metrics.versions.count_shadowed(Shadowed("cats", version, version + 1, {"agreed": 2}))
    told = samples(metrics.render(jobs={}, engines=[]).decode())
    images = {(key[1], key[3]) for key in told if key[0] == "inference_images_total"}
    assert images == {*(("cats", str(each)) for each in range(801, 1000)), ("dogs", "1"), ("other", "other")}
    assert told["inference_images_total", "other", "classified", "other"] == 801
    assert told["inference_images_total", "dogs", "classified", "1"] == 1000
    copies = {key: count for key, count in told.items() if key[0] == "inference_shadow_images_total"}
    assert (len(copies), copies["inference_shadow_images_total", "other", "agreed", "other", "other"]) == (201, 1600)
    counted, complete = metrics.versions.of_versions()
    assert (len(counted), complete) == (200, False)


def test_buckets_grow_and_end_with_all() -> None:
    bounds = cumulative({5: 3, 300: 2})
    assert bounds[-1] == ("+Inf", 5)
    assert dict(bounds)["256.0"] == 3
    assert [count for _, count in bounds] == sorted(count for _, count in bounds)
