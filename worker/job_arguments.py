"""The command line that every job's process has: `python -m worker.<program> RUN_DIR [--claim N] [--data DIR] …`."""

import argparse
import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class JobArguments:
    """Absolute paths; `claim` is this claim's number."""

    run_dir: Path
    claim: int
    data_dir: Path
    device: str

    @property
    def claim_dir(self) -> Path:
        return self.run_dir / f"claim-{self.claim}"


def read_arguments(program: str, description: str) -> JobArguments:
    parser = argparse.ArgumentParser(prog=f"python -m {program}", description=description)
    parser.add_argument("run_dir", type=Path, help="the job's folder, with spec.json")
    parser.add_argument("--claim", type=int, help="number of this claim of the job; default: one more than the last")
    parser.add_argument("--data", type=Path, help="the data directory; default: two above RUN_DIR")
    parser.add_argument("--device", default=os.environ.get("RESNETD_DEVICE", "auto"), help="auto, cpu, cuda, cuda:0, …")
    given = parser.parse_args()
    run_dir = given.run_dir.resolve()
    return JobArguments(
        run_dir=run_dir,
        claim=given.claim or _next_claim(run_dir),
        data_dir=(given.data or run_dir.parent.parent).resolve(),
        device=given.device,
    )


def _next_claim(run_dir: Path) -> int:
    numbers = [int(place.name[6:]) for place in run_dir.glob("claim-*") if place.name[6:].isdigit()]
    return max(numbers, default=0) + 1
