"""Checkpoints cut, flipped, emptied and taken away."""

import os
import random
import sys
from collections import Counter
from typing import Any

from benchmarks.resume.run import Run
from models import checkpoint, checkpoint_files
from store.layout import Layout
from worker.job_process import DONE


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
    }
