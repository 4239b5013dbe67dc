"""A job's process that does what its spec's `script` says, line by line; it speaks like the real ones."""

import faulthandler
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import orjson

from store.files import write_json
from store.process import attach_to_parent
from worker.orders import NAME, OrdersFile

attach_to_parent()
faulthandler.register(signal.SIGUSR1, all_threads=True)
run_dir, claim = Path(sys.argv[1]), int(sys.argv[3])
spec = orjson.loads((run_dir / "spec.json").read_bytes())


def say(kind, **data):
    sys.stdout.buffer.write(orjson.dumps({"type": kind, "data": data}) + b"\n")
    sys.stdout.buffer.flush()


signal.signal(signal.SIGTERM, lambda *_: os._exit(75))
(run_dir / f"pid-{claim}").write_text(str(os.getpid()))
for step in spec["scripts"][min(claim, len(spec["scripts"])) - 1]:
    match step:
        case ["say", kind, data]:
            say(kind, **data)
        case ["flood", count]:
            for n in range(count):
                say("progress", step=n)
        case ["noise"]:
            print("not json", flush=True)
            print('{"half":', flush=True)
        case ["stderr", text]:
            print(text, file=sys.stderr, flush=True)
        case ["deaf"]:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        case ["orders", version]:  # wait until this version of the orders, or a later one, is there, and tell of it
            orders = OrdersFile(run_dir / f"claim-{claim}" / NAME)
            while (found := orders.look()) is None or found.version < version:
                time.sleep(0.01)
            say("log", orders=found.model_dump())
        case ["files"]:
            say("log", files=sorted(str(each.relative_to(run_dir)) for each in run_dir.rglob("*")))
        case ["leftover"]:
            (run_dir / f"claim-{claim}" / ".step-1.0123.tmp").mkdir()
            (run_dir / f"claim-{claim}" / ".dataset.0123.tmp").mkdir()
            (run_dir / f"claim-{claim}" / ".dataset.0123.tmp" / "dataset.json").touch()
        case ["ticking", count]:  # says something every 10 ms
            for n in range(count):
                say("progress", step=n)
                time.sleep(0.01)
        case ["stop_when", name]:  # told to stop, it says so, and does it only when that file is there
            signal.signal(signal.SIGTERM, lambda *_: (run_dir / "pid-stopping").write_text(str(os.getpid())))
            while not (run_dir / name).exists():
                time.sleep(0.01)
            os._exit(75)
        case ["until_stopped"]:  # goes on with its script when it is told to stop
            stopped = threading.Event()
            signal.signal(signal.SIGTERM, lambda *_, stopped=stopped: stopped.set())
            while not stopped.wait(0.01):
                pass
        case ["hang"]:
            while True:
                time.sleep(0.01)
        case ["grandchild"]:  # holds standard output open and outlives its parent
            grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
            (run_dir / "grandchild").write_text(str(grandchild.pid))
        case ["kill", name]:
            os.kill(os.getpid(), getattr(signal, name))
        case ["artifact"]:
            folder = run_dir / f"claim-{claim}" / "model"
            folder.mkdir(parents=True, exist_ok=True)
            write_json(folder / "anything.json", {})
            say("result", artifact=f"claim-{claim}/model", metrics={"test": {"top1": 0.5}})
        case ["exit", code]:
            sys.exit(code)
