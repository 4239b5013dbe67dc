"""`make soak`, or `python -m benchmarks.soak SCENARIO …`: long runs on a real server; the last line is one JSON object.

`--scale small` runs all of them in minutes, to see that they work; the smallest form of each is a test.
"""

import argparse
import asyncio
import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import uvloop
from PIL import Image

from benchmarks.origin import origin
from benchmarks.soak import aborts, cycles, drains, kills, memory, overload, swaps

PHOTOS = Path(os.environ.get("RESNETD_TEST_DATA", "../shared/data")) / "photos"
Scenario = Callable[[Path], Coroutine[Any, Any, dict[str, Any]]]


def picture(side: int, quality: int = 90) -> bytes:
    """A JPEG with something on it."""
    image = Image.radial_gradient("L").resize((side, side)).convert("RGB")
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def scenarios(*, long: bool, network: str) -> dict[str, Scenario]:
    """Each with its figures of the long run, or of a short one."""
    small, photos = picture(64), sorted(PHOTOS.glob("*.jpg"))
    photo = photos[0].read_bytes() if photos else picture(400)

    def either(much: int, little: int) -> int:
        return much if long else little

    return {
        "swaps": lambda at: swaps.run(at, small, swaps=either(300, 5), requests=either(100_000, 500), clients=8),
        "kills": lambda at: kills.run(
            at, small, kills=either(300, 2), clients=2, pause=31.0 if long else 1.0, services=either(6, 1)
        ),
        "drains": lambda at: drains.run(at, small, stops=either(100, 2), clients=8),
        "aborts": lambda at: aborts.run(at, photo, aborts=either(4000, 400)),
        "overload": lambda at: overload.run(at, photo, network=network, photos=photos, seconds=either(180, 10)),
        "memory": lambda at: memory.run(at, small, requests=either(1_000_000, 20_000), clients=8),
        "cycles": lambda at: cycles.run(at, cycles=either(50, 2)),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("scenario", nargs="*", help="which, one after the other; all of them where none is named")
    parser.add_argument("--scale", choices=("long", "small"), default="long")
    parser.add_argument("--network", default="resnet18", help="of `overload`: torchvision's name, or toy")
    arguments = parser.parse_args()
    known = scenarios(long=arguments.scale == "long", network=arguments.network)
    unknown = set(arguments.scenario) - set(known)
    if unknown:
        parser.error(f"no scenario {', '.join(sorted(unknown))}; there are: {', '.join(known)}")
    figures: dict[str, Any] = {"benchmark": "soak", "scale": arguments.scale, **origin()}
    for name in arguments.scenario or known:
        began = time.monotonic()
        with (
            tempfile.TemporaryDirectory(prefix="resnetd-soak-") as folder,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            found = runner.run(known[name](Path(folder)))
        figures[name] = {**found, "seconds": round(time.monotonic() - began, 1)}
        print(json.dumps({name: figures[name]}), flush=True)
    passed = all(figures[name]["passed"] for name in arguments.scenario or known)
    print(json.dumps({**figures, "passed": passed}))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
