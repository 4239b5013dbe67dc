"""A planner's process that does what the variable TOY_PLANNER says, line by line; it speaks like the real one."""

import os
import sys
import time
from pathlib import Path

import orjson

from store.process import attach_to_parent

attach_to_parent()
request = orjson.loads(sys.stdin.buffer.read())
here = Path(os.environ["TOY_FOLDER"])
runs = len(list(here.glob("run-*")))
(here / f"run-{runs}").write_bytes(orjson.dumps({"request": request, "arguments": sys.argv[1:], "pid": os.getpid()}))


def say(kind, data):
    sys.stdout.buffer.write(orjson.dumps({"type": kind, "data": data}) + b"\n")
    sys.stdout.buffer.flush()


for step in orjson.loads(os.environ["TOY_PLANNER"]):
    match step:
        case ["plan", reason]:
            say("plan", {"n": runs, "measured": {"reason": reason, "cached": False}})
        case ["disturbed"]:
            problems = [{"code": "machine_busy"}]
            say("plan", {"n": runs, "measured": {"reason": None, "cached": False}, "problems": problems})
        case ["curve"]:
            say("plan", {"svg": "<svg/>"})
        case ["measured"]:
            say("measured", {"images_per_second": 7.0})
        case ["error", code]:
            say("error", {"code": code, "message": "it cannot be", "hint": "do otherwise"})
        case ["reached", name]:
            (here / name).touch()
        case ["noise"]:
            print("not json", flush=True)
            print('{"half":', flush=True)
        case ["hang"]:
            while True:
                time.sleep(0.01)
        case ["exit", code]:
            print("the last words", file=sys.stderr)
            sys.exit(code)
