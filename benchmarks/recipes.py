"""What the recipes reach: each trained as a job on all of its real data, over HTTP, and evaluated on the test split.

    python -m benchmarks.recipes [--recipes mnist,mnist-gated] [--override d2l-fashion-mnist:precision=bf16]
                                 [--server URL] [--jobs ID,ID] [--record FILE]

Without `--server` a `resnetd up` of its own, on an empty data directory. `--jobs` are trainings that the server already
has: they are waited for and told of like the others. The test images were seen once, by the evaluation at each job's
end. A recipe's aim is what it was made to reach; the status is 1 where one is missed. Data from RESNETD_TEST_DATA.

Recipes come one after the other. `seconds_to_first_answer` is from a job's submission until the version that it
registered has first classified an image, over HTTP; null for `--jobs`, and where there was no answer.

FILE gets a line of JSON for each job as soon as it has ended. The last line is one JSON object.
"""

import argparse
import contextlib
import json
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from benchmarks.family_data import build
from benchmarks.first_hour import DATA
from benchmarks.origin import origin
from benchmarks.stack import fresh_stack
from resnetd.client import Client
from resnetd.errors import Problem

#: Of each recipe: its data, and the test accuracy that it aims at.
AIMS: dict[str, tuple[str, float | None]] = {
    "mnist": ("mnist", 0.995),
    "mnist-gated": ("mnist", 0.995),
    "fashion-mnist-small": ("fashion-mnist", 0.90),
    "fashion-mnist": ("fashion-mnist", 0.94),
    "d2l-fashion-mnist": ("fashion-mnist", None),
    "cifar10-resnet20": ("cifar10", 0.905),
    "cifar10-fast": ("cifar10", 0.94),
    "cifar10-best": ("cifar10", 0.95),
}


def told(job: dict[str, Any], client: Client, *, first_answer: float | None = None) -> dict[str, Any]:
    """What a training that has ended gave: its figures, and every epoch's. `first_answer`: seconds to it."""
    spec = job["spec"]
    figures: dict[str, Any] = {"recipe": spec["recipe"], "overrides": spec["overrides"], "state": job["state"]}
    if job["state"] != "succeeded":
        return {**figures, "error": job["error"], "reached": False}
    metrics = job["result"]["metrics"]
    aim = AIMS[spec["recipe"]][1]
    curve = [event.data for event in client.events(job["id"]) if event.type == "epoch"]
    return {
        **figures,
        "network": metrics["recipe"]["network"],
        "precision": metrics["recipe"]["precision"],
        "epochs": metrics["epochs"],
        "ended": metrics["ended"],
        "changes": metrics["changes"],
        "claims": job["attempts"],
        "test": {name: metrics[name] for name in ("top1", "correct", "total", "log_loss", "ece", "ece_uncalibrated")},
        "val_top1": metrics["val_top1"],
        "train_seconds": metrics["train_seconds"],
        "job_seconds": job["seconds"],
        "seconds_to_first_answer": first_answer,
        "aim": aim,
        "reached": aim is None or metrics["top1"] >= aim,
        "curve": [
            {
                "epoch": each["epoch"],
                "train": each["train"]["top1"],
                "val": each["val"] and each["val"]["top1"],
                "seconds": each["seconds"],
            }
            for each in curve
        ],
    }


@contextlib.contextmanager
def serving(url: str | None) -> Iterator[Client]:
    with contextlib.ExitStack() as held:
        if url is None:
            stack = held.enter_context(fresh_stack())
            stack.start()
            url = stack.url
        yield held.enter_context(Client(url, timeout=120))


def served(
    client: Client, dataset: str, recipe: str, overrides: dict[str, Any], *, image: bytes
) -> tuple[dict[str, Any], float | None]:
    """A training that has ended, and seconds from its submission to its version's first answer; None without one."""
    began = time.monotonic()
    job = client.wait(client.train(dataset, recipe=recipe, overrides=overrides, register_as=recipe)["id"])
    if job["state"] != "succeeded":
        return job, None
    version = f"{job['result']['model']}@{job['result']['version']}"
    try:
        client.load_model(version)  # which waits for as long as it takes; a classification has its time-out
        client.classify(image, model=version)
    except Problem as problem:
        print(f"{version} does not answer: {problem}", file=sys.stderr)
        return job, None
    return job, round(time.monotonic() - began, 2)


def trained(client: Client, asked: argparse.Namespace, folder: Path) -> Iterator[dict[str, Any]]:
    """Each recipe's figures; each dataset is uploaded once."""
    datasets: dict[str, tuple[str, bytes]] = {}
    for recipe in asked.recipes:
        name = AIMS[recipe][0]
        if name not in datasets:
            part = build(DATA, name, folder, train=None, test=None)
            upload = client.upload_dataset(part.archive)
            if client.wait(upload["job"]["id"])["state"] != "succeeded":
                raise SystemExit(f"the import of {name} failed")
            datasets[name] = upload["id"], part.tests[0][0]
        dataset, image = datasets[name]
        overrides = {key: value for of, key, value in asked.override if of == recipe}
        job, first_answer = served(client, dataset, recipe, overrides, image=image)
        yield told(job, client, first_answer=first_answer)


def measure(asked: argparse.Namespace) -> dict[str, Any]:
    whence, found = origin(), []
    with serving(asked.server) as client, tempfile.TemporaryDirectory(prefix="resnetd-bench-") as folder:
        waited = (told(client.wait(job), client) for job in asked.jobs)
        for figures in chain(waited, trained(client, asked, Path(folder))):
            found.append(figures)
            print(json.dumps(figures), file=sys.stderr, flush=True)
            if asked.record is not None:
                with asked.record.open("a") as file:
                    file.write(json.dumps({**whence, **figures}) + "\n")
    return {"benchmark": "recipes", **whence, "recipes": found}


def setting(text: str) -> tuple[str, str, Any]:
    """`recipe:field=value`, the value as JSON or else as it stands."""
    recipe, _, rest = text.partition(":")
    field, equals, value = rest.partition("=")
    if recipe not in AIMS or not equals:
        raise argparse.ArgumentTypeError(f"{text} is not recipe:field=value, of one of {', '.join(AIMS)}")
    with contextlib.suppress(json.JSONDecodeError):
        return recipe, field, json.loads(value)
    return recipe, field, value


def names(text: str) -> list[str]:
    chosen = text.split(",")
    if unknown := set(chosen) - set(AIMS):
        raise argparse.ArgumentTypeError(f"no recipe with an aim: {', '.join(sorted(unknown))}")
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser(description="What the recipes reach on their real data; see the module.")
    parser.add_argument(
        "--recipes", type=names, help=f"some of {', '.join(AIMS)}; all unless these or --jobs are given"
    )
    parser.add_argument("--override", type=setting, action="append", default=[], metavar="RECIPE:FIELD=VALUE")
    parser.add_argument("--server", help="that runs already")
    parser.add_argument("--jobs", type=lambda text: text.split(","), default=[], help="that this server already has")
    parser.add_argument("--record", type=Path, help="file that gets a line for each job")
    asked = parser.parse_args()
    if asked.jobs and asked.server is None:
        parser.error("--jobs needs --server")
    if asked.recipes is None:
        asked.recipes = [] if asked.jobs else list(AIMS)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # who breaks it off leaves no server behind
    figures = measure(asked)
    print(json.dumps(figures))
    sys.exit(not all(each["reached"] for each in figures["recipes"]))


if __name__ == "__main__":
    main()
