"""`make bench-train` whole, on so few images that it shows that it works, not how fast."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.train import _input_share

ROOT = Path(__file__).parents[2]


def test_another_input_takes_its_time_beside_the_rest_of_the_step():
    """A step of 10 ms, 1 ms of it input; with an input of 3 ms it is 12 ms, a quarter of it input."""
    assert _input_share(100, 1000, 1000 / 3) == pytest.approx(3 / 12)
    assert _input_share(100, 1000, 1000) == pytest.approx(1 / 10)


def test_the_benchmark_compares_speed_and_time_to_accuracy_in_one_run():
    options = shlex.split("--steps 2 --batch 32 --rounds 1 --network mnist/residual --size 28 --device cpu --epochs 2")
    command = [sys.executable, "-m", "benchmarks.train", *options, "--book-accuracy", "0.15"]
    data = ["--data", str(ROOT / "tests/data/fashion-mnist-mini")]
    ended = subprocess.run([*command, *data], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout.splitlines()[-1])
    speed, to_accuracy = found["images_per_second"], found["to_accuracy"]
    assert found["ratio"] > 0
    assert abs(found["ratio"] - speed["ours"] / speed["book"]) < 0.01 * found["ratio"]
    plain, augmented = found["input_share"]["ours"], found["input_share_augmented"]
    assert set(augmented) == {"fashion-mnist", "auto_augment"}
    assert 0 < plain < augmented["auto_augment"] < 1
    assert 0 < augmented["fashion-mnist"] < 1
    assert to_accuracy["test_top1"] > 0.15  # by chance 0.1
    assert to_accuracy["reached"]
    images = 2000
    assert abs(to_accuracy["book_seconds_foreseen"] - 10 * images / speed["book"]) < 0.1
    times_less = to_accuracy["book_seconds_foreseen"] / to_accuracy["seconds"]
    assert abs(to_accuracy["times_less"] - times_less) < 0.02 * times_less  # of seconds that are not rounded
