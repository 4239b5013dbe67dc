"""Every network trained for an epoch on its real data, evaluated, exported and served, over HTTP, by one `resnetd up`.

    python -m benchmarks.families [--networks a,b] [--images N] [--test-images N] [--seconds S] [--image-size PIXELS]
                                  [--precision exact] [--record FILE [--resume]]

d2l learns Fashion-MNIST, mnist MNIST, cifar and torchvision CIFAR-10, which torchvision's networks see enlarged. Each
has its recipe and one epoch: of all images, or of a class-balanced part; with `--seconds`, of as many as the plan's
measured speed allows in that time. A network is ok if each job succeeded (an export is refused unless it reproduces
the golden outputs) and its test images get the answers over HTTP that its evaluation gave: all but two in a thousand,
and the same log loss of logits within 0.002, of engines that compute in float32 (`exact`); ten times that in `bf16`.

FILE gets a line of JSON for each network as soon as it is done, with its command, machine, date and commit; with
`--resume` those that are ok there are not done again. The last line is one JSON object. Data from RESNETD_TEST_DATA.
"""

import argparse
import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.family_data import Part, build
from benchmarks.family_steps import Figures, Run, again, different, fitting, one_epoch
from benchmarks.first_hour import DATA
from benchmarks.origin import origin
from benchmarks.stack import fresh_stack
from resnetd.client import Client
from resnetd.errors import Problem

MAY_DIFFER = {"exact": 0.002, "bf16": 0.02}  # share of test images with other answers; and part of the log loss


def say(*words: object) -> None:
    print(*words, file=sys.stderr, flush=True)


class Families:
    """The datasets that are uploaded so far, and what there is to ask of each network."""

    def __init__(self, client: Client, folder: Path, asked: argparse.Namespace) -> None:
        self._client, self._folder, self._asked = client, folder, asked
        self._recipes = {each["name"]: each["fields"] for each in client.recipes()["data"]}
        self._datasets: dict[tuple[str, int | None], tuple[str, Part]] = {}

    def measure(self, network: str) -> Figures:
        """All of it, the error where there was one. Raises Unreachable where the server has gone."""
        began = time.monotonic()
        run = Run(self._client, network.replace("/", "-"))
        figures: Figures = {"network": network, "ok": False, "error": None}
        try:
            self._steps(network, run, figures)
            run.take_away()
            figures["ok"] = True
        except (Problem, RuntimeError) as error:
            figures["error"] = str(error)
            with contextlib.suppress(Problem):
                run.take_away()
        return {**figures, "seconds": round(time.monotonic() - began, 1)}

    def _steps(self, network: str, run: Run, figures: Figures) -> None:
        """Each step adds to the figures what it gave."""
        name, recipe = fitting(network)
        fields = self._recipes[recipe]
        size = self._asked.image_size if network.startswith("torchvision/") else None
        dataset, part = self._dataset(name, self._asked.images)
        overrides = one_epoch(network, fields, images=part.train, size=size)
        planned = again(lambda: self._client.plan(dataset, recipe=recipe, overrides=overrides))
        if self._asked.seconds is not None:
            if (speed := planned["images_per_second"]) is None:
                raise RuntimeError(f"the plan has no speed: {planned['measured']['reason']}")
            affordable = _rounded(int(self._asked.seconds * speed))
            if affordable < part.train:
                dataset, part = self._dataset(name, affordable)
        largest = planned["largest_batch_size"]
        overrides = one_epoch(network, fields, images=part.train, largest_batch=largest, size=size)
        figures |= {
            "dataset": name,
            "recipe": recipe,
            "overrides": overrides,
            "parameters": planned["parameters"],
            "flops_per_image": planned["flops_per_image"],
            "device": planned["device"]["name"],
            "input": [planned["recipe"]["channels"], *[planned["recipe"]["image_size"]] * 2],
            "images": part.train,
            "test_images": len(part.tests),
            "planned_images_per_second": planned["images_per_second"],
        }
        figures["train"] = run.train(dataset, recipe, overrides)
        figures["evaluate"], evaluated = run.evaluate(dataset)
        for form in ("onnx", "torch_export"):
            figures[form] = self._export(run, form)
        http, answered = run.serve(part)
        figures["http"] = http | {"differ": different(evaluated, answered), "precision": self._asked.precision}
        self._compare(figures["evaluate"], figures["http"])
        if refused := [error for form in ("onnx", "torch_export") if (error := figures[form].get("error"))]:
            raise RuntimeError("; ".join(refused))

    def _export(self, run: Run, form: str) -> Figures:
        """A model that is refused as one kind of file may still be served, and its answers say why."""
        try:
            return run.export(form)
        except RuntimeError as error:
            return {"error": f"{form}: {error}"}

    def _compare(self, evaluated: Figures, http: Figures) -> None:
        most = MAY_DIFFER[self._asked.precision]
        if http["total"] != evaluated["total"] or http["differ"] > most * http["total"]:
            raise RuntimeError(f"{http['differ']} images have other answers over HTTP than in the evaluation")
        here, there = evaluated["log_loss_uncalibrated"], http["log_loss_uncalibrated"]
        if not abs(here - there) <= most * max(1.0, here):
            raise RuntimeError(f"the log loss is {there} over HTTP, {here} in the evaluation")

    def _dataset(self, name: str, images: int | None) -> tuple[str, Part]:
        """Uploaded once, imported, and the archive itself."""
        if (name, images) not in self._datasets:
            part = build(DATA, name, self._folder, train=images, test=self._asked.test_images)
            upload = self._client.upload_dataset(part.archive)
            job = self._client.wait(upload["job"]["id"])
            if job["state"] != "succeeded":
                raise RuntimeError(f"the import of {name} {job['state']}, {job['error']}")
            self._datasets[name, images] = upload["id"], part
            say(f"{name}: {part.train} images and {len(part.tests)} for the test")
        return self._datasets[name, images]


def _rounded(images: int) -> int:
    """Down to two digits, so that networks of like speed share a dataset."""
    step: int = 10 ** max(len(str(images)) - 2, 1)
    return max(images // step * step, 100)


def recorded(file: Path | None) -> dict[str, Figures]:
    """The last line of each network in a record."""
    lines = file.read_text().splitlines() if file is not None and file.exists() else []
    return {each["network"]: each for each in map(json.loads, lines)}


def measure(asked: argparse.Namespace) -> dict[str, Any]:
    done = recorded(asked.record) if asked.resume else {}
    found: list[Figures] = []
    with fresh_stack() as stack:
        stack.start()
        with stack.client() as http:
            every = [each["name"] for each in http.get("/v1/architectures").raise_for_status().json()["data"]]
        with Client(stack.url, timeout=120) as client:
            networks = asked.networks.split(",") if asked.networks else every
            if unknown := set(networks) - set(every):
                raise SystemExit(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(every)}")
            families = Families(client, stack.data.parent, asked)
            for number, network in enumerate(networks, start=1):
                if done.get(network, {}).get("ok"):
                    found.append(done[network])
                    continue
                say(f"{network}, {number} of {len(networks)}")
                figures = families.measure(network)
                found.append(figures)
                say(json.dumps(figures))
                if asked.record is not None:
                    with asked.record.open("a") as file:
                        file.write(json.dumps(figures | origin()) + "\n")
                client.ready()
    return {
        "asked": {key: value for key, value in vars(asked).items() if key not in ("record", "resume")},
        "ok": sum(each["ok"] for each in found),
        "failed": [each["network"] for each in found if not each["ok"]],
        "networks": found,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Every network trained, evaluated, exported and served; see the module."
    )
    parser.add_argument("--networks", help="some, with commas between; all of GET /v1/architectures unless given")
    parser.add_argument("--images", type=int, help="to train with, validation included; all unless given")
    parser.add_argument("--test-images", type=int, help="all unless given")
    parser.add_argument("--seconds", type=float, help="that an epoch may take: images are as many as that allows")
    parser.add_argument("--image-size", type=int, help="side of the input of torchvision's networks; 224 unless given")
    parser.add_argument("--precision", choices=tuple(MAY_DIFFER), default="exact", help="of the engines")
    parser.add_argument("--record", type=Path, help="file that gets a line for each network")
    parser.add_argument("--resume", action="store_true", help="leave out what is ok in the record")
    asked = parser.parse_args()
    if asked.resume and asked.record is None:
        parser.error("--resume needs --record")
    os.environ["RESNETD_PRECISION"] = asked.precision
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # who breaks it off leaves no server behind
    figures = measure(asked)
    print(json.dumps(figures))
    sys.exit(bool(figures["failed"]))


if __name__ == "__main__":
    main()
