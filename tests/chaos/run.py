"""`python tests/chaos/run.py [--scenario NAME …] [--scale long|short] [--seed N]`: hurt everything, then check.

Progress goes to standard error; standard output is one JSON line with every figure. Each scenario's part of it is
appended to `<date>-chaos-<scenario>.json` as soon as it is over: with the traces, or in the folder of `--records`.
Exit status 1: something was violated.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(1, str(ROOT))

from scenarios import SCENARIOS, Scale  # noqa: E402 - the project is on the path since the line before

from benchmarks.origin import origin  # noqa: E402 - likewise


def main() -> int:
    arguments = _arguments()
    seed = arguments.seed if arguments.seed is not None else random.randrange(2**31)
    out = arguments.out or Path(tempfile.mkdtemp(prefix="resnetd-chaos-"))
    out.mkdir(parents=True, exist_ok=True)
    say(f"scale {arguments.scale}, seed {seed}, traces in {out}")
    figures: dict[str, dict[str, Any]] = {}
    for name in arguments.scenario or [name for name in SCENARIOS if getattr(SCENARIOS[name], arguments.scale)]:
        figures[name] = run(name, arguments.scale, seed, out)
        record = (arguments.records or out) / f"{datetime.now(UTC).date()}-chaos-{name}.json"
        with record.open("ab") as file:
            file.write(orjson.dumps(summary(arguments.scale, seed, {name: figures[name]})) + b"\n")
    whole = summary(arguments.scale, seed, figures)
    print(orjson.dumps(whole).decode(), flush=True)
    return 1 if whole["violations"] else 0


def summary(scale: Scale, seed: int, figures: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What the last line says: where it was run, the figures of each scenario, and how many violations in all."""
    return {
        "chaos": scale,
        "seed": seed,
        **origin(),
        "scenarios": figures,
        "violations": sum(len(each["violations"]) for each in figures.values()),
    }


def run(name: str, scale: Scale, seed: int, out: Path) -> dict[str, Any]:
    say(f"{name} …")
    scenario = SCENARIOS[name]
    began, at = time.monotonic(), datetime.now(UTC)
    try:
        report = asyncio.run(scenario(out / name, seed=seed, scale=scale))
        figures = report.figures()
    except Exception as error:  # a scenario that could not be played to its end has not shown anything
        figures = {"violations": [f"the scenario failed: {error!r}"]}
        say(f"{name}: {error!r}")
    seconds = round(time.monotonic() - began, 1)
    sizes = {key: value for key, value in scenario.sizes(scale).items() if value is not None}
    say(f"{name}: {len(figures['violations'])} violations in {seconds} s")
    for violation in figures["violations"]:
        say(f"  {violation}")
    return {"at": at.isoformat(timespec="seconds"), "sizes": sizes, "seconds": seconds, **figures}


def say(what: str) -> None:
    print(f"{datetime.now(UTC):%H:%M:%S} {what}", file=sys.stderr, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python tests/chaos/run.py", description="Hurt everything, then check.")
    parser.add_argument("--scenario", action="append", choices=list(SCENARIOS), help="again for more; default: all")
    parser.add_argument("--scale", choices=["long", "short"], default="long")
    parser.add_argument("--seed", type=int, help="default: a new one each time")
    parser.add_argument("--out", type=Path, help="where traces go; default: a temporary folder that stays")
    parser.add_argument("--records", type=Path, help="append each scenario's line to a file in this folder")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
