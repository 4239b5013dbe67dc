"""`python -m worker.planner [--data DIR] [--device auto] [--measure] < request.json`: what a training would be.

It says a line `plan` as soon as there is one, again when it knows more, and `measured` for whoever keeps figures. It
starts itself once more with the trainer's settings of malloc, for it measures the trainer's speed.
"""

import argparse
import os
import sys
import time
from pathlib import Path

from pydantic import ValidationError

from store.process import attach_to_parent
from worker.job_environment import KEEP_PAGES
from worker.job_process import JobRefused, Stop, run
from worker.planner.request import PlanRequest


def main(stop: Stop) -> None:
    parser = argparse.ArgumentParser(prog="python -m worker.planner", description="Plan a train job; queue nothing.")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("RESNETD_DATA", "var")), help="data directory")
    parser.add_argument("--device", default=os.environ.get("RESNETD_DEVICE", "auto"), help="auto, cpu, cuda, cuda:0, …")
    parser.add_argument("--measure", action="store_true", help="take real training steps; the device must be free")
    given = parser.parse_args()
    try:
        request = PlanRequest.model_validate_json(sys.stdin.buffer.read())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the request"
        hint = 'Give {"dataset", "recipe", "overrides"} on standard input.'
        raise JobRefused("bad_request", f"{where}: {first['msg']}", hint) from error
    if not given.measure:
        os.nice(5)  # a job may be running beside it
    from worker.planner.planning import plan  # noqa: PLC0415 - torch takes seconds; SIGTERM is heard from the start

    plan(
        request,
        data_dir=given.data.resolve(),
        device_name=given.device,
        measure=given.measure,
        stop=stop,
        started=_started(),
    )


def _started() -> float:
    """When Linux started this process, by the monotonic clock."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return time.monotonic() - age


if __name__ == "__main__":
    if not set(KEEP_PAGES) <= os.environ.keys():
        attach_to_parent()  # exec keeps the death signal and the pid
        os.execve(sys.executable, sys.orig_argv, {**KEEP_PAGES, **os.environ})  # noqa: S606 - this very program
    sys.exit(run(main))
