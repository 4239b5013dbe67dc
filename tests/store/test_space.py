"""What uploads may take of a disk."""

import math
import os
from types import SimpleNamespace

import pytest

from store import space
from store.space import spare


def of(monkeypatch, *, size: int, free: int) -> float:
    found = SimpleNamespace(f_blocks=size // 4096, f_frsize=4096, f_bavail=free // 4096)
    monkeypatch.setattr(space.os, "statvfs", lambda _: found)
    return spare(0)


@pytest.mark.parametrize(
    ("size", "free", "left"),
    [
        (1 << 40, 1 << 34, (1 << 34) - (1 << 30)),  # a large disk keeps 1 GiB
        (1 << 40, 1 << 29, (1 << 29) - (1 << 30)),
        (50 << 20, 10 << 20, 9 << 20),  # a small one its 50th part
        (0, 0, math.inf),  # a file system that does not say
    ],
)
def test_a_disk_keeps_a_reserve(monkeypatch, size, free, left):
    assert of(monkeypatch, size=size, free=free) == left


def test_a_folder_and_an_open_file_are_asked_alike(tmp_path):
    with (tmp_path / "file").open("wb") as file:
        assert spare(tmp_path) == pytest.approx(spare(file.fileno()), rel=0.1)
    assert spare(tmp_path) < os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
