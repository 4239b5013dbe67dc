"""On which cores an engine's streams compute."""

import os
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from app.engine import batch
from app.engine.batch import Computing


def cores_of(pool: ThreadPoolExecutor, *, streams: int) -> list[set[int]]:
    """The cores that each of the pool's threads may use, all of them at work at once."""
    together = Barrier(streams)

    def look() -> set[int]:
        together.wait(10)
        return os.sched_getaffinity(0)

    with pool:
        return [found.result() for found in [pool.submit(look) for _ in range(streams)]]


def streams_of(count: int) -> ThreadPoolExecutor:
    return batch._narrow_pool(Computing(wide=None, streams=count))  # type: ignore[arg-type]  # nothing is computed


def test_where_there_is_a_stream_for_each_core_each_keeps_to_its_own() -> None:
    here = os.sched_getaffinity(0)
    found = cores_of(streams_of(len(here)), streams=len(here))
    assert sorted(found, key=min) == [{core} for core in sorted(here)]
    assert os.sched_getaffinity(0) == here


def test_fewer_streams_than_cores_go_where_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    here = os.sched_getaffinity(0)
    monkeypatch.setattr(batch.os, "sched_getaffinity", lambda _: here | {max(here) + 1})
    pool = streams_of(len(here))
    monkeypatch.undo()
    assert cores_of(pool, streams=len(here)) == [here] * len(here)


def test_a_core_that_is_gone_stops_no_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    here = os.sched_getaffinity(0)
    monkeypatch.setattr(batch.os, "sched_getaffinity", lambda _: {10_000 + core for core in here})
    pool = streams_of(len(here))
    monkeypatch.undo()
    assert cores_of(pool, streams=len(here)) == [here] * len(here)
