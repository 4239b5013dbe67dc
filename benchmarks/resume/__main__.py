"""Trainings that are killed and go on, against ones that nobody disturbed: the same bits, or it is counted.

A kill at every step × every phase of a checkpoint's writing × loader workers 0 and 2; kills at random moments of saves;
checkpoints truncated and flipped, bits of a stored dataset flipped; a disk that is full at any moment, memory that is
short, numbers that are none. The training is real and small: an augmented, averaged, streamed run of `cifar/resnet8` on
made images; each claim is a process of its own, forked with torch in memory, and a kill is a SIGKILL.
`python -m benchmarks.resume [--small] [--kills 500] [--damaged 1000] [--fills 100]`. The last line is one JSON object.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # an optimizer's first step imports it: seconds for each process, and once for all that are forked

from benchmarks.origin import origin
from benchmarks.resume.damage import damage
from benchmarks.resume.kills import kills_in_saves, matrix
from benchmarks.resume.not_numbers import not_numbers
from benchmarks.resume.run import Run, write_dataset
from benchmarks.resume.shortages import full_disks, larger_than_memory, short_memory
from store.layout import Layout
from worker.job_process import DONE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="shorter runs, for the test suite")
    parser.add_argument("--kills", type=int, default=500, help="at random moments of saves")
    parser.add_argument("--fills", type=int, default=100, help="of a small disk")
    parser.add_argument("--damaged", type=int, default=1000, help="checkpoints")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    began = time.monotonic()
    overrides: dict[str, Any] = {"epochs": 2} if arguments.small else {}
    with tempfile.TemporaryDirectory(prefix="resume-") as place:
        layout = Layout(Path(place)).create()
        write_dataset(layout, 42 if arguments.small else 100)
        job = Run(layout, "undisturbed", **overrides)
        ended = job.claim()
        if ended.code != DONE:
            raise SystemExit(f"the undisturbed run failed:\n{job.errors.read_text()}")
        undisturbed = job.outcome(ended)
        memory = Run(layout, "memory", loader="memory", **overrides)
        figures = {
            "benchmark": "resume",
            **origin(),
            "small": arguments.small,
            "steps": max(ended.steps),
            "stream_equals_memory": memory.outcome(memory.claim()) == undisturbed,
            "every_step": matrix(layout, undisturbed, overrides),
            "saves": kills_in_saves(layout, undisturbed, overrides, kills=arguments.kills),
            "damage": damage(layout, undisturbed, overrides, count=arguments.damaged),
            "disk_full": full_disks(layout, undisturbed, overrides, fills=arguments.fills),
            "short_memory": short_memory(layout, overrides),
            "larger_than_memory": larger_than_memory(layout),
            "not_numbers": not_numbers(layout, undisturbed, overrides),
            "seconds": round(time.monotonic() - began, 1),
        }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
