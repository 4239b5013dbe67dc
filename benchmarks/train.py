"""This trainer against the book's way, on the same network, images and machine, in one run.

    python -m benchmarks.train [--data FOLDER_OR_ZIP] [--steps 12] [--rounds 3] [--epochs 3] [--override compile=true]

The book's way (Dive into Deep Learning, 8.6): a DataLoader whose workers resize each PIL image anew in every epoch,
float32, eager, PyTorch's own memory format. Ours: `python -m worker.trainer` with the environment that the worker gives
it, the images prepared once, in bf16. Both train in processes of their own, in turn, `rounds` times; the ratio is that
of the medians, of whole epochs without validation.

Then ours once more, with the recipe `fashion-mnist` shortened to `--epochs`, on all images and evaluated on all test
images at its end: the time to the book's test accuracy, as `benchmarks/records/2026-11-22-recipes.json` has it, against
that of the book's ten epochs at the speed measured before. `--epochs 0` leaves this part out.

`input_share` is the part of a step's time that its images alone take, made without training on them; neither way
augments them. `input_share_augmented` is what ours would be with the augmentation of `fashion-mnist` (shifts, mirror
images), and with TrivialAugment too: the same step with this input in place of its own.

`--data` holds the four IDX files of MNIST or Fashion-MNIST. MFU is of the peak of a bf16 matrix product, measured in
the same run; a training step counts as three forward passes. The last line is one JSON object.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.idx_files import read_split, write_dataset
from benchmarks.origin import origin
from store.datasets import SplitName
from store.layout import Layout
from worker.job_environment import computing_environment

REAL, SUBSET = Path("../shared/data/fashion-mnist"), Path(__file__).parents[1] / "tests/data/fashion-mnist-mini"
DATASET, WHOLE = "ds_bench", "ds_whole"
BOOK_EPOCHS = 10
EPOCHS = 2  # the first one warms up: memory is touched, kernels are made
HELD_OUT = 256


def measure(asked: argparse.Namespace) -> dict[str, Any]:
    whence = origin()
    pixels, labels = read_split(asked.data, "train")
    ends = [asked.steps * asked.batch + part * HELD_OUT for part in range(3)]
    if len(pixels) < ends[-1]:
        raise SystemExit(f"{asked.data} has {len(pixels)} images, this needs {ends[-1]}: take fewer --steps")
    with tempfile.TemporaryDirectory(prefix="resnetd-bench-") as folder:
        layout = Layout(Path(folder) / "data").create()
        train, val, test = (slice(*bounds) for bounds in itertools.pairwise([0, *ends]))
        parts: dict[SplitName, slice] = {"train": train, "val": val, "test": test}
        write_dataset(layout, DATASET, {name: (pixels[rows], labels[rows]) for name, rows in parts.items()})
        facts = part("limits", layout, asked)
        book, ours, pipeline = [], [], []
        for number in range(asked.rounds):
            book.append(part("book", layout, asked))
            ours.append(train_steps(layout, asked))
            pipeline.append(part("pipeline", layout, asked))
            print(f"round {number + 1}: book {book[-1]}, ours {ours[-1]}", file=sys.stderr)
        found = _compared(facts, book, ours, pipeline)
        if asked.epochs:
            write_dataset(layout, WHOLE, {"train": (pixels, labels), "test": read_split(asked.data, "t10k")})
            found["to_accuracy"] = train_to_accuracy(
                layout, asked, book_seconds=BOOK_EPOCHS * len(pixels) / found["images_per_second"]["book"]
            )
    return {"benchmark": "train", **whence, **vars(asked), "data": asked.data.name, **facts, **found}


def train_steps(layout: Layout, asked: argparse.Namespace) -> dict[str, float]:
    """Images a second of the trainer's last epoch, and seconds until steps are told of."""
    overrides = {
        "epochs": EPOCHS,
        "batch_size": asked.batch,
        "precision": "bf16",
        "checkpoint_seconds": 1e6,
        **_ours(asked),
    }
    first, seconds = 0.0, []
    for after, event in trainer(layout, DATASET, "d2l-fashion-mnist", overrides, device=asked.device):
        if event["type"] == "progress" and event["data"]["phase"] == "train":
            first = first or after
        elif event["type"] == "epoch":
            seconds.append(event["data"]["seconds"])
    return {"images_per_second": asked.steps * asked.batch / seconds[-1], "first_step_s": first}


def train_to_accuracy(layout: Layout, asked: argparse.Namespace, *, book_seconds: float) -> dict[str, Any]:
    """Seconds from the process's start to the end of the last epoch, and the accuracy on all test images after it."""
    overrides = {"epochs": asked.epochs, "warmup_epochs": 1, **_ours(asked)}
    seconds, top1 = 0.0, 0.0
    for after, event in trainer(layout, WHOLE, "fashion-mnist", overrides, device=asked.device):
        if event["type"] == "epoch":
            seconds = after
            print(f"after {after:.0f} s: {event['data']}", file=sys.stderr)
        elif event["type"] == "evaluation":
            top1 = event["data"]["top1"]
    return {
        "seconds": round(seconds, 1),
        "test_top1": top1,
        "book_seconds_foreseen": round(book_seconds, 1),
        "book_test_top1": asked.book_accuracy,
        "reached": top1 >= asked.book_accuracy,
        "times_less": round(book_seconds / seconds, 2),
    }


def _ours(asked: argparse.Namespace) -> dict[str, Any]:
    return {"network": asked.network, "image_size": asked.size, **asked.override}


def trainer(
    layout: Layout, dataset: str, recipe: str, overrides: dict[str, Any], *, device: str
) -> Iterator[tuple[float, dict[str, Any]]]:
    """What the trainer's process says, each with the seconds since its start. Ends the program where it fails."""
    run_dir = layout.job(f"job_{time.time_ns()}")
    run_dir.mkdir()
    spec = {"kind": "train", "dataset": dataset, "recipe": recipe, "overrides": overrides}
    (run_dir / "spec.json").write_text(json.dumps(spec))
    command = [sys.executable, "-m", "worker.trainer", str(run_dir), "--data", str(layout.root), "--device", device]
    began = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=computing_environment()) as process:
        for line in process.stdout or ():
            event = json.loads(line)
            if event["type"] == "error":
                raise SystemExit(f"the trainer refused: {event['data']['message']} {event['data']['hint']}")
            yield time.monotonic() - began, event
    if process.returncode:
        raise SystemExit(f"the trainer ended with status {process.returncode}")


def part(name: str, layout: Layout, asked: argparse.Namespace) -> dict[str, Any]:
    """A part of `benchmarks.train_parts`, in its own process; the book's has no allocator settings of ours."""
    options = {key: value for key, value in vars(asked).items() if key != "data"}
    command = [sys.executable, "-m", "benchmarks.train_parts", name, str(layout.root), json.dumps(options)]
    environment = dict(os.environ) if name == "book" else computing_environment()
    ended = subprocess.run(command, stdout=subprocess.PIPE, env=environment, check=True)
    return dict(json.loads(ended.stdout.splitlines()[-1]))


Rounds = list[dict[str, Any]]


def _compared(facts: dict[str, Any], book: Rounds, ours: Rounds, pipeline: Rounds) -> dict[str, Any]:
    needed = 3 * facts["forward_flops_per_image"]
    speed = {"book": _median(book, "images_per_second"), "ours": _median(ours, "images_per_second")}
    return {
        "images_per_second": {name: round(value, 2) for name, value in speed.items()},
        "each_round": {
            name: [round(each["images_per_second"], 2) for each in rounds]
            for name, rounds in (("book", book), ("ours", ours))
        },
        "ratio": round(speed["ours"] / speed["book"], 3),
        "mfu": {name: round(value * needed / facts["peak_bf16_flops"], 4) for name, value in speed.items()},
        "input_share": {
            "book": round(_median(book, "input_share"), 4),
            "ours": round(speed["ours"] / _median(pipeline, "ours"), 4),
        },
        "input_share_augmented": {
            name: round(_input_share(speed["ours"], _median(pipeline, "ours"), _median(pipeline, name)), 4)
            for name in ("fashion-mnist", "auto_augment")
        },
        "ours_first_step_s": round(_median(ours, "first_step_s"), 2),
    }


def _input_share(steps: float, input_: float, other: float) -> float:
    """The share of `other` input in a step, from images a second: of steps, of the input in them, and of the other."""
    return 1 / other / (1 / steps - 1 / input_ + 1 / other)


def _median(rounds: Rounds, name: str) -> float:
    return float(statistics.median(each[name] for each in rounds))


def _overrides(texts: list[str]) -> Iterator[tuple[str, Any]]:
    for text in texts:
        name, _, value = text.partition("=")
        try:
            yield name, json.loads(value)
        except json.JSONDecodeError:
            yield name, value


def main() -> None:
    parser = argparse.ArgumentParser(description="This trainer against the book's way; see the module.")
    parser.add_argument("--data", type=Path, default=REAL if REAL.exists() else SUBSET)
    parser.add_argument("--steps", type=int, default=12, help="of each epoch")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3, help="of the training to the book's accuracy; 0 = without it")
    parser.add_argument("--book-accuracy", type=float, default=0.9156, help="on the test images, after its ten epochs")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--size", type=int, default=96, help="side of the network's input")
    parser.add_argument("--network", default="d2l/resnet18")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--override", action="append", default=[], metavar="FIELD=VALUE", help="of our recipe")
    asked = parser.parse_args()
    asked.override = dict(_overrides(asked.override))
    print(json.dumps(measure(asked)))


if __name__ == "__main__":
    main()
