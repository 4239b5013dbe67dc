"""The soak's scenarios, run whole in the smallest form that shows something; engines measure no runtimes."""

import asyncio
import math
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from serving_toys import picture

from benchmarks.soak import cycles, kills, memory, overload, swaps
from benchmarks.soak.http_load import BROKEN, Answer

IMAGE = picture(1)


def run(scenario: Coroutine[Any, Any, dict[str, Any]]) -> dict[str, Any]:
    return asyncio.run(asyncio.wait_for(scenario, 240))


def test_an_alias_moves_to_a_good_version_and_not_to_a_broken_one(tmp_path: Path) -> None:
    found = run(swaps.run(tmp_path, IMAGE, swaps=2, requests=50, clients=1, broken_every=2, runtime="eager"))
    assert found["passed"], found
    assert found["broken_versions_refused"] == 1
    assert found["requests"] >= 50


def test_an_engine_that_was_killed_is_back_and_every_request_is_answered(tmp_path: Path) -> None:
    found = run(kills.run(tmp_path, IMAGE, kills=1, clients=1, pause=0.1, runtime="eager"))
    assert found["passed"], found
    assert found["kills"] == 1


def test_a_model_that_is_unloaded_leaves_no_memory_and_no_process(tmp_path: Path) -> None:
    found = run(cycles.run(tmp_path, cycles=1, runtime="eager"))
    assert found["passed"], found


def test_a_leak_of_1_kb_a_request_is_caught(tmp_path: Path) -> None:
    """At so few requests, what an engine's malloc keeps may be a hundredth too: of the server itself only the rest
    is judged here.
    """
    found = run(memory.run(tmp_path, IMAGE, requests=1500, clients=8, runtime="eager"))
    assert found["a_leak_of_1_kb_was_caught"], found
    assert found["leaky"]["requests"] == 1500
    assert not [each for each in found["leaks"] if "memory" not in each], found


def test_ten_times_the_load_is_refused_in_part_and_memory_stays_within_its_bound(tmp_path: Path) -> None:
    """How long a refusal takes, and how many are answered, is not judged beside other tests."""
    slow = picture(1, size=700)  # milliseconds to decode: this client can ask ten times too much
    found = run(overload.run(tmp_path, slow, network="toy", photos=[], seconds=0.6, runtime="eager"))
    assert set(found["at"]["2x"]["statuses"]) <= {"200", "503"}, found
    assert set(found["at"]["10x"]["statuses"]) == {"200", "503"}, found
    own = found["own_mb"]
    assert 0 < own["before"] <= own["at_most"] <= own["before"] + found["own_mb_may_grow_by"]
    assert own["after"] <= own["at_most"]


@pytest.mark.parametrize(
    ("slow_refusals", "broken", "passed"),
    [(0, 0, True), (1, 0, True), (2, 0, False), (0, 1, False), (100, 0, False)],
)
def test_99_of_100_refusals_take_20_ms_at_most_and_none_breaks(slow_refusals: int, broken: int, passed: bool) -> None:
    good = [Answer(200, 0.5)] * 100
    refused = [Answer(503, 0.002)] * (100 - slow_refusals) + [Answer(503, 0.021)] * slow_refusals
    judged = overload._judged(good + refused + [Answer(BROKEN, 0.1)] * broken, offered=200, peak=100, took=1.0)
    assert judged["passed"] is passed
    assert judged["refused_p50_ms"] == (21 if slow_refusals == 100 else 2)
    assert judged["refused_p99_ms"] == (21 if slow_refusals > 1 else 2)
    assert judged["goodput_of_peak"] == 1


def test_a_load_of_which_nothing_is_refused_was_none() -> None:
    judged = overload._judged([Answer(200, 0.5)] * 100, offered=200, peak=100, took=1.0)
    assert not judged["passed"]
    assert math.isnan(judged["refused_p99_ms"])


def test_the_bound_of_memory_grows_with_what_is_let_in_and_not_with_what_is_offered() -> None:
    nothing, photo = overload.memory_bound(0), overload.memory_bound(100_000)
    assert nothing == 150_000_000
    assert photo - nothing == 2 * (1024 + 512) * 100_000
