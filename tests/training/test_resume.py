"""A small form of `benchmarks/resume/`: trainings that are killed, starved and damaged, and go on."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from running import environment

ROOT = Path(__file__).resolve().parents[2]
COMMAND = ["-m", "benchmarks.resume", "--small", "--kills", "6", "--damaged", "60", "--fills", "5"]

pytestmark = pytest.mark.timeout(900)  # for the fixture: some hundred short processes


@pytest.fixture(scope="module")
def figures() -> dict[str, Any]:
    ended = subprocess.run(
        [sys.executable, *COMMAND], cwd=ROOT, env=environment(), capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr[-4000:]
    told: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return told


def test_killed_at_every_step_and_every_phase_of_a_save_with_any_workers_a_run_ends_with_the_same_bits(figures):
    kills = figures["every_step"]["by_phase"]
    assert len(kills) == 12
    assert set(kills.values()) == {figures["steps"]}
    assert figures["every_step"]["different"] == figures["every_step"]["unexpected"] == []


def test_images_streamed_from_files_give_the_bits_of_images_in_memory(figures):
    assert figures["stream_equals_memory"] is True


def test_a_kill_in_a_save_leaves_every_checkpoint_loadable_and_none_that_was_told_of_is_missing(figures):
    saves = figures["saves"]
    assert saves["kills"] == 6
    assert saves["left_half_written"] > 0  # they did strike in the midst
    assert (saves["unloadable"], saves["behind_what_was_told"], saves["different"]) == (0, 0, 0)


def test_every_damaged_checkpoint_is_noticed_and_the_one_before_it_taken(figures):
    damage = figures["damage"]
    assert damage["damaged"] == 60
    assert (damage["undetected"], damage["not_the_one_before"], damage["different"]) == (0, 0, 0)


def test_every_bit_that_flips_in_a_stored_dataset_is_noticed_and_ends_a_training_as_damage(figures):
    flipped = figures["damage"]["dataset"]
    kinds = ("blob", "crc32.npy", "index.npy", "labels.npy")
    assert set(flipped["flips"]) == {f"{split}.{kind}" for split in ("train", "test") for kind in kinds}
    assert (flipped["undetected"], flipped["seen_in_a_good_one"]) == (0, False)
    assert set(flipped["trainings"].values()) == {"exit status 78, dataset_damaged"}


def test_a_full_disk_ends_a_claim_as_that_and_costs_no_checkpoint(figures):
    full = figures["disk_full"]
    if "skipped" in full:
        # A small disk is a tmpfs, which only root may mount; every other figure of the run is asserted all the same.
        pytest.skip(full["skipped"])
    assert set(full["ends"]) <= {"exit status 77, disk_full", "exit status 0, None"}
    assert full["ends"]["exit status 77, disk_full"] > 0
    assert (full["without_a_good_checkpoint"], full["left_half_written"], full["different"]) == (0, 0, 0)


def test_too_little_memory_ends_a_claim_as_that_and_costs_no_checkpoint(figures):
    assert figures["short_memory"] == {"ends": "exit status 78, out_of_memory", "checkpoint_kept": True}


def test_a_dataset_larger_than_memory_trains_from_its_files(figures):
    assert figures["larger_than_memory"] == {"memory": "exit status 78, out_of_memory", "stream": "trained"}


@pytest.mark.parametrize(
    ("where", "code"),
    [("loss", "loss_not_finite"), ("gradient", "weights_not_finite"), ("weight", "weights_not_finite")],
)
def test_numbers_that_are_none_end_a_claim_and_never_reach_a_checkpoint(figures, where: str, code: str):
    assert figures["not_numbers"][where] == {
        "ends": f"exit status 78, {code}",
        "last_checkpoint": 1,
        "finite": True,
        "different": 0,
    }
