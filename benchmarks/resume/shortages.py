"""A disk that is full and memory that is short."""

import os
import random
import resource
import shutil
import signal
import subprocess
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.resume.run import Run, names
from models import checkpoint, checkpoint_files
from store.datasets import Dataset, ImageSummary, Report, Source, SplitSummary
from store.layout import Layout
from worker.job_process import DONE


def full_disks(layout: Layout, undisturbed: dict[str, Any], overrides: dict[str, Any], *, fills: int) -> dict[str, Any]:
    """A run on a small file system that is filled up to a random rest: the claim ends, its last checkpoint stays."""
    chance = random.Random(0)
    place = layout.root / "small-disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        return {"skipped": f"no file system can be mounted here: {mounted.stderr.decode().strip()}"}
    ends: Counter[str] = Counter()
    different, damaged, left_behind, done, runs = 0, 0, 0, 0, 0
    try:
        while done < fills:
            job = Run(layout, f"full-{runs}", folder=place / "run", workers=0, **overrides)
            runs += 1
            ended = job.claim(f"checkpoint.said:{chance.randint(2, 4)}:kill")
            for _ in range(5):
                ballast, free = place / "ballast", shutil.disk_usage(place).free
                ballast.write_bytes(bytes(max(0, free - chance.randrange(3 * 2**19))))
                ended = job.claim()
                ballast.unlink()
                done += 1
                ends[f"exit status {ended.code}, {ended.error}"] += 1
                left_behind += any(name.startswith(".step-") for name in names(job.folder / f"claim-{job.claims}"))
                damaged += _loadable(job.folder) == 0
                if ended.code == DONE:
                    break
            if ended.code != DONE:
                ended = job.claim()
            different += ended.code != DONE or job.outcome(ended) != undisturbed
            shutil.rmtree(job.folder)
    finally:
        subprocess.run(["umount", str(place)], check=False)
    return {
        "fills": done,
        "ends": dict(ends),
        "without_a_good_checkpoint": damaged,
        "left_half_written": left_behind,
        "different": different,
    }


def _loadable(run_dir: Path) -> int:
    """How many checkpoints can be loaded; RuntimeError where one cannot."""
    return len([checkpoint.load(place) for _, _, place in checkpoint_files.found(run_dir)])


def short_memory(layout: Layout, overrides: dict[str, Any]) -> dict[str, Any]:
    """A claim that may use little more memory than it starts with, for images that need much more."""
    job = Run(layout, "memory-short", **{**overrides, "image_size": 256, "cutout": 0, "epochs": 1, "workers": 0})
    job.claim("checkpoint.said:1:kill")
    ended = job.claim(prepare=_limit_memory)
    kept = checkpoint.newest(job.folder)
    return {"ends": f"exit status {ended.code}, {ended.error}", "checkpoint_kept": kept is not None and kept.step == 1}


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + 100 * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def larger_than_memory(layout: Layout) -> dict[str, str]:
    """200 MB of pixels for a process that may have 100 MB: streamed they train, in memory they are refused."""
    count, size, classes = 50_000, 64, 2
    folder = layout.dataset("ds_large")
    (folder / "data").mkdir(parents=True)
    pixels = np.lib.format.open_memmap(folder / "data" / "train.images.npy", "w+", np.uint8, (count, size, size, 1))
    some = np.arange(4000)  # images that differ, or none could be held out; the others take no room on the disk
    pixels[some, 0, 0, 0], pixels[some, 0, 1, 0] = some % 256, some // 256 + 1
    pixels.flush()
    labels = np.arange(count) % classes
    np.save(folder / "data" / "train.labels.npy", labels)
    Dataset(
        id="ds_large",
        name="large",
        digest="sha256:" + "0" * 64,
        created_at=datetime.now(UTC),
        source=Source(format="idx"),
        classes=("even", "odd"),
        splits={"train": SplitSummary(images=count, per_class=tuple(np.bincount(labels).tolist()))},
        image=ImageSummary(sizes={}, modes={}, uniform=True, height=size, width=size, channels=1),
        report=Report(images=count),
    ).write(folder)
    ends = {}
    for loader in ("memory", "stream"):
        job = Run(layout, f"large-{loader}", dataset="ds_large", image_size=size, loader=loader, workers=2)
        ended = job.claim("training.stepped:3:kill", prepare=_limit_data)
        trained = ended.code == -signal.SIGKILL and max(ended.steps) == 2  # the third is not saved yet
        ends[loader] = "trained" if trained else f"exit status {ended.code}, {ended.error}"
    return ends


def _limit_data() -> None:
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    limit = int(fields["VmData"].split()[0]) * 1024 + 100 * 2**20  # what is mapped from files is not counted
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
