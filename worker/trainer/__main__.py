"""`python -m worker.trainer RUN_DIR [--claim N] [--data DIR] [--device auto]`: train, knowing neither Celery nor Redis.

On several CPU cores glibc's malloc gives pages back too eagerly for tensors of one size over and over: the variables of
`MALLOC` keep them, and must be there when the process starts, so it starts itself once more with them.
"""

import argparse
import os
import sys
from pathlib import Path

from store.process import attach_to_parent
from worker.job_process import Stop, run

MALLOC = {"MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "17179869184"}


def main(stop: Stop) -> None:
    arguments = _arguments()
    run_dir: Path = arguments.run_dir.resolve()
    from worker.trainer.train import train  # noqa: PLC0415 - torch takes seconds; SIGTERM is heard from the start

    train(
        run_dir=run_dir,
        claim=arguments.claim or _next_claim(run_dir),
        data_dir=arguments.data or run_dir.parent.parent,
        device_name=arguments.device,
        stop=stop,
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m worker.trainer", description="Run one train job.")
    parser.add_argument("run_dir", type=Path, help="the job's folder, with spec.json")
    parser.add_argument("--claim", type=int, help="number of this claim of the job; default: one more than the last")
    parser.add_argument("--data", type=Path, help="the data directory; default: two above RUN_DIR")
    parser.add_argument("--device", default=os.environ.get("RESNETD_DEVICE", "auto"), help="auto, cpu, cuda, cuda:0, …")
    return parser.parse_args()


def _next_claim(run_dir: Path) -> int:
    numbers = [int(place.name[6:]) for place in run_dir.glob("claim-*") if place.name[6:].isdigit()]
    return max(numbers, default=0) + 1


if __name__ == "__main__":
    if not set(MALLOC) <= os.environ.keys():
        attach_to_parent()  # exec keeps the death signal and the pid
        os.execve(sys.executable, sys.orig_argv, {**MALLOC, **os.environ})  # noqa: S606 - this very program
    sys.exit(run(main))
