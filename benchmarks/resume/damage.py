"""Checkpoints cut, flipped, emptied and taken away; datasets flipped on the disk."""

import os
import random
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.resume.run import Run
from models import checkpoint, checkpoint_files
from store.datasets import DATA, Dataset
from store.layout import Layout
from worker.job_process import DONE, JobRefused
from worker.trainer.data import opened


def damage(layout: Layout, undisturbed: dict[str, Any], overrides: dict[str, Any], *, count: int) -> dict[str, Any]:
    """The newest checkpoint's files cut, flipped, emptied or taken away: seen each time, the one before it taken."""
    chance = random.Random(0)
    job = Run(layout, "damaged", workers=0, **overrides)
    job.claim("checkpoint.pruned:5:kill")
    (newest, _, folder), (before, _, _) = checkpoint_files.found(job.folder)
    good = {path: path.read_bytes() for path in sorted(folder.iterdir())}
    how: Counter[str] = Counter()
    undetected, not_the_one_before = 0, 0
    with open(os.devnull, "w") as quiet:  # noqa: PTH123 - a word for each on standard error is right, and much
        standard_error, sys.stderr = sys.stderr, quiet
        for _ in range(count):
            path = chance.choice(list(good))
            data, kind = bytearray(good[path]), chance.choice(["cut", "bit flipped", "byte changed", "emptied", "gone"])
            how[f"{path.name} {kind}"] += 1
            place = chance.randrange(len(data))
            if kind == "cut":
                del data[place:]
            elif kind == "bit flipped":
                data[place] ^= 1 << chance.randrange(8)
            elif kind == "byte changed":
                data[place] = (data[place] + chance.randrange(1, 256)) % 256
            elif kind == "emptied":
                data.clear()
            if kind == "gone":
                path.unlink()
            else:
                path.write_bytes(data)
            found = checkpoint.newest(job.folder)
            undetected += found is not None and found.step == newest
            not_the_one_before += found is None or found.step != before
            path.write_bytes(good[path])
        sys.stderr = standard_error
    next(iter(good)).write_bytes(b"damaged")
    ended = job.claim()
    return {
        "damaged": count,
        "how": dict(how),
        "undetected": undetected,
        "not_the_one_before": not_the_one_before,
        "different": int(ended.code != DONE or job.outcome(ended) != undisturbed),
        "dataset": flipped_datasets(layout, overrides, count=count),
    }


def flipped_datasets(layout: Layout, overrides: dict[str, Any], *, count: int) -> dict[str, Any]:
    """A bit of a dataset's data, any, flipped: seen when its images are read, and by a training of each file's."""
    chance = random.Random(0)
    folder = shutil.copytree(layout.dataset("ds_resume"), layout.dataset("ds_flipped"))
    good = {path: path.read_bytes() for path in sorted((folder / DATA).iterdir())}
    flips, undetected, ends = Counter[str](), 0, {}
    for number in range(count + len(good)):
        path = list(good)[number] if number < len(good) else chance.choice(list(good))
        data = bytearray(good[path])
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
        flips[path.name] += 1
        undetected += not _seen(folder)
        if number < len(good):
            ended = Run(layout, f"flipped-{path.name}", dataset="ds_flipped", workers=0, **overrides).claim()
            ends[path.name] = f"exit status {ended.code}, {ended.error}"
        path.write_bytes(good[path])
    return {"flips": dict(flips), "undetected": undetected, "trainings": ends, "seen_in_a_good_one": _seen(folder)}


def _seen(folder: Path) -> bool:
    dataset = Dataset.read(folder)
    try:
        for name in dataset.splits:
            split = opened(folder, dataset, name)
            for index in range(len(split)):
                split.encoded(index)
    except JobRefused as refusal:
        return refusal.code == "dataset_damaged"
    return False
