"""Batches of all engines since the server's start, told by whichever HTTP process looked last."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from app.batch_tally import BatchTally
from app.inference.figures import EngineFigures


def engine(process: str, batches: Mapping[int, int], *, version: int = 3) -> EngineFigures:
    return EngineFigures("cats", version, ready=True, restarts=0, waiting=0, batches=batches, process=process)


@pytest.fixture(params=["memory", "folder"])
def tally(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BatchTally:
    monkeypatch.delenv("PROMETHEUS_MULTIPROC_DIR", raising=False)
    if request.param == "folder":
        monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    return BatchTally()


def test_a_new_process_of_an_engine_adds_to_those_before_it(tally: BatchTally) -> None:
    assert tally.total([]) == {}
    assert tally.total([engine("a", {1: 4})]) == {("cats", "3"): {1: 4}}
    assert tally.total([engine("a", {1: 5, 8: 1})]) == {("cats", "3"): {1: 5, 8: 1}}
    assert tally.total([EngineFigures("cats", 3, ready=False, restarts=1)]) == {("cats", "3"): {1: 5, 8: 1}}
    assert tally.total([engine("b", {8: 2})]) == {("cats", "3"): {1: 5, 8: 3}}
    assert tally.total([engine("a", {1: 4}), engine("b", {8: 2})]) == {("cats", "3"): {1: 5, 8: 3}}  # heard late


def test_the_sum_of_many_processes_never_falls_and_takes_no_more_room(tally: BatchTally) -> None:
    for number in range(1, 101):
        assert tally.total([engine(str(number), {2: 3})]) == {("cats", "3"): {2: 3 * number}}
    (processes,) = tally._told.values()
    assert len(processes) == 5


def test_versions_that_nobody_looked_at_for_long_go_first(tally: BatchTally, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.batch_tally._VERSIONS", 2)
    for version in (1, 2, 1, 3):
        told = tally.total([engine(f"of {version}", {1: version}, version=version)])
    assert told == {("cats", "1"): {1: 1}, ("cats", "3"): {1: 3}}


def test_whichever_process_looks_tells_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    one, other = BatchTally(), BatchTally()
    one.total([engine("a", {1: 9})])
    assert other.total([engine("b", {1: 1})]) == {("cats", "3"): {1: 10}}
    assert one.total([engine("b", {1: 2})]) == {("cats", "3"): {1: 11}}
