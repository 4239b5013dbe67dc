"""How many cores a process counts on, where its container may not use all of them."""

import os
from pathlib import Path

import pytest

from store import control_group
from store.control_group import quota_cores, usable_cores

NO_QUOTA = "max 100000\n"


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("200000 100000", 2), ("150000 100000\n", 2), ("10000 100000", 1), (NO_QUOTA, None), ("-1\n 100000\n", None)],
)
def test_a_quota_is_worth_its_time_by_its_period_rounded_up(quota: str, cores: int | None) -> None:
    assert quota_cores(quota) == cores


@pytest.mark.parametrize(
    ("files", "limited"),
    [
        ({}, False),
        ({"a/b/cpu.max": NO_QUOTA, "a/cpu.max": NO_QUOTA}, False),
        ({"a/b/cpu.max": "90000 100000"}, True),
        ({"a/b/cpu.max": NO_QUOTA, "a/cpu.max": "90000 100000"}, True),
        ({"cpu.max": "90000 100000"}, True),  # a container's own group, seen as the root
        ({"cpu/cpu.cfs_quota_us": "90000", "cpu/cpu.cfs_period_us": "100000"}, True),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, False),
    ],
)
def test_the_smallest_quota_of_the_group_and_those_around_it_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], limited: bool
) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    monkeypatch.setattr(control_group, "_ROOT", tmp_path)
    monkeypatch.setattr(control_group, "folder", lambda: tmp_path / "a" / "b")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert usable_cores() == (1 if limited else 8)
