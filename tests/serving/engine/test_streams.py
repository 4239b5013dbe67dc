"""On which cores an engine's streams compute."""

import os
from collections.abc import Callable
from threading import Barrier

import pytest

from app.engine.streams import Streams


def cores_of(streams: Streams, *, count: int, crowded: bool) -> list[set[int]]:
    """The cores that each of the threads may use, all of them at work at once."""
    together = Barrier(count)

    def look() -> set[int]:
        streams.keep(crowded=crowded)
        together.wait(10)
        return os.sched_getaffinity(0)

    return [found.result() for found in [streams.threads.submit(look) for _ in range(count)]]


def test_where_every_core_has_a_stream_at_work_each_keeps_to_its_own_and_else_goes_where_there_is_room() -> None:
    here = os.sched_getaffinity(0)
    streams = Streams(len(here))
    for crowded in (True, False, True):
        found = cores_of(streams, count=len(here), crowded=crowded)
        assert sorted(found, key=min) == ([{core} for core in sorted(here)] if crowded else [here] * len(here))
    assert os.sched_getaffinity(0) == here
    streams.threads.shutdown()


@pytest.mark.parametrize("cores", [lambda here: here | {max(here) + 1}, lambda here: {10_000 + core for core in here}])
def test_fewer_streams_than_cores_and_cores_that_are_gone_keep_nobody(
    monkeypatch: pytest.MonkeyPatch, cores: Callable[[set[int]], set[int]]
) -> None:
    here = os.sched_getaffinity(0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: cores(here))
    streams = Streams(len(here))
    monkeypatch.undo()
    assert cores_of(streams, count=len(here), crowded=True) == [here] * len(here)
    streams.threads.shutdown()
