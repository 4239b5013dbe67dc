"""What a plan's measurement of a checkpoint counts."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from planning_kit import recipe

from models.manifest import NetworkSpec
from worker.planner import saving
from worker.planner.saving import kept_bytes, saving_seconds
from worker.trainer.distributed import World
from worker.trainer.fresh import fresh_state
from worker.trainer.state import RunState

BYTES = 4 * 74_547  # of the network's parameters


@pytest.fixture
def state() -> RunState:
    spec = NetworkSpec(name="cifar/resnet8", num_classes=3, in_channels=1)
    return fresh_state(spec, recipe(ema_decay=0.9), torch.device("cpu"), World())


def test_kept_weights_are_those_of_one_network_with_its_statistics(state):
    assert BYTES < kept_bytes(state) < 1.05 * BYTES


def test_the_network_its_average_and_the_kept_weights_are_written_and_nothing_stays(state, tmp_path, monkeypatch):
    written = []
    copy = saving.copy
    monkeypatch.setattr(saving, "copy", lambda pieces, file: written.append(copy(pieces, file) and file.tell()))
    assert saving_seconds(state, tmp_path) > 0
    assert 3 * kept_bytes(state) < written[0] < 3.2 * kept_bytes(state)
    assert list(tmp_path.iterdir()) == []


def test_of_a_large_state_a_part_is_written_and_the_rest_counted_like_it(state, tmp_path, monkeypatch):
    """By a clock of the test on which whatever is written takes a second."""
    seconds = iter(range(10))
    monkeypatch.setattr(saving, "time", SimpleNamespace(perf_counter=lambda: next(seconds)))
    monkeypatch.setattr(saving, "_MOST_BYTES", BYTES)
    assert 2.5 < saving_seconds(state, tmp_path) < 3.2


def test_where_nothing_can_be_written_the_time_is_that_of_100_mb_a_second(state, tmp_path):
    found = saving_seconds(state, Path(tmp_path / "nowhere"))
    assert found == pytest.approx(3 * kept_bytes(state) / 1e8, rel=0.01)
