"""One network from its dataset to its answers: planned, trained, evaluated, exported, served, and taken away again."""

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.family_data import Part
from resnetd.client import Client
from resnetd.errors import Problem

Figures = dict[str, Any]
Confusion = Counter[tuple[str, str]]  # how many images of a class (the first) were answered with a class (the second)

STEPS = 50  # that an epoch of few images has at least, where batches are made smaller for it
SMALLEST_BATCH = 16
REQUEST_SECONDS = 4.0  # of a classification; 30 are allowed
_ATTEMPTS = 4
_DEEP_CIFAR = {f"cifar/resnet{depth}" for depth in (18, 34, 50, 101, 152)}


def fitting(network: str) -> tuple[str, str]:
    """The data set and the recipe for a network of the registry."""
    family = network.partition("/")[0]
    if family == "cifar":
        small = "cifar10-fast" if network == "cifar/resnet9" else "cifar10-resnet20"
        return "cifar10", "cifar10-best" if network in _DEEP_CIFAR else small
    if network == "mnist/gated":
        return "mnist", "mnist-gated"
    return {"d2l": ("fashion-mnist",) * 2, "mnist": ("mnist",) * 2, "torchvision": ("cifar10", "imagenet")}[family]


def one_epoch(
    network: str, recipe: Mapping[str, Any], *, images: int, largest_batch: int | None = None, size: int | None = None
) -> Figures:
    """What is overridden of `recipe` for one epoch of so many images: a schedule that fits into it, batches that memory
    holds, and more and smaller ones of few images, their learning rate lower by the root of that. `size`: of the input.
    """
    batch = recipe["batch_size"]
    while batch > SMALLEST_BATCH and images // batch < STEPS:
        batch //= 2
    while batch > 2 and batch > (largest_batch or batch):
        batch //= 2
    changed = {
        "network": network,
        "epochs": 1,
        "schedule": "one_cycle",
        "step_epochs": [],
        "warmup_epochs": 0.2,
        "batch_size": batch,
        "lr": round(recipe["lr"] * math.sqrt(batch / recipe["batch_size"]), 6),
    }
    if recipe["precision"] == "tf32":  # which a CPU has not
        changed["precision"] = "bf16"
    if size is not None:
        changed |= {"image_size": size, "resize": round(size * recipe["resize"] / recipe["image_size"])}
    return changed


def again(call: Callable[[], Figures]) -> Figures:
    """What the call gives; called again where the answer is that it is not possible just now."""
    for _ in range(_ATTEMPTS - 1):
        try:
            return call()
        except Problem as problem:
            if problem.status not in (503, 504):
                raise
        time.sleep(5)
    return call()


@dataclass
class Run:
    """The jobs of one network, and what they made."""

    client: Client
    name: str
    version: int = 0
    jobs: list[str] = field(default_factory=list)
    loaded: bool = False

    @property
    def ref(self) -> str:
        return f"{self.name}@{self.version}"

    def train(self, dataset: str, recipe: str, overrides: Figures) -> Figures:
        job = self.client.train(dataset, recipe=recipe, overrides=overrides, register_as=self.name)
        epochs: list[Figures] = []
        steps = 0

        def look(kind: str, data: Figures) -> None:
            nonlocal steps
            steps = max(steps, data.get("step") or 0) if kind == "progress" else steps
            epochs.extend([data] if kind == "epoch" else [])

        result, seconds = self._followed(job, look)
        self.version = result["version"]
        epoch, images = epochs[-1], steps * overrides["batch_size"]
        return {
            "images_trained": images,
            "steps": steps,
            "epoch_seconds": epoch["seconds"],
            "images_per_second": round(images / epoch["seconds"], 2),
            "train_loss": round(epoch["train"]["loss"], 4),
            "train_top1": round(epoch["train"]["top1"], 4),
            "val_top1": round(epoch["val"]["top1"], 4),
            "test_top1": result["metrics"]["top1"],
            "job_seconds": seconds,
            "claims": self.client.job(job["id"])["attempts"],  # after a crash the epoch's seconds are those of its rest
        }

    def evaluate(self, dataset: str) -> tuple[Figures, Confusion]:
        result, seconds = self._followed(self.client.evaluate(self.ref, dataset))
        labels = self.client.labels(self.ref)["labels"]
        confusion: Confusion = Counter()
        for true, row in zip(labels, result["metrics"]["confusion"], strict=True):
            confusion.update({(true, told): count for told, count in zip(labels, row, strict=True)})
        kept = ("top1", "top5", "correct", "total", "log_loss", "log_loss_uncalibrated", "ece", "ece_uncalibrated")
        return {**{each: result["metrics"][each] for each in kept}, "job_seconds": seconds}, confusion

    def export(self, form: str) -> Figures:
        result, seconds = self._followed(self.client.export(self.ref, format=form))
        files = {each["name"]: each["bytes"] for each in self.client.artifacts(self.jobs[-1])}
        return {"job_seconds": seconds, "golden_deviation": result["metrics"]["golden_deviation"], "bytes": files}

    def serve(self, part: Part) -> tuple[Figures, Confusion]:
        """Load the version and classify the test images."""
        began = time.monotonic()
        self.loaded = True
        self.client.load_model(self.ref)
        load_seconds = time.monotonic() - began
        began = time.monotonic()
        confusion, log_loss, largest_logit = self._classified(part)
        told = self.client.model(self.ref)["loaded"][0]
        runtime = told["runtime"] or {}
        return {
            "load_seconds": round(load_seconds, 2),
            "seconds": round(time.monotonic() - began, 1),
            "runtime": runtime.get("name"),
            "correct": sum(count for (true, answer), count in confusion.items() if true == answer),
            "total": confusion.total(),
            "log_loss_uncalibrated": log_loss,
            "largest_logit": largest_logit,
        }, confusion

    def take_away(self) -> None:
        """The engine's process, the version and the jobs' files. Raises Problem."""
        if self.loaded:
            self.client.unload_model(self.ref)
        if self.version:
            self.client.delete_version(self.name, self.version)
        for job in self.jobs:
            self.client.delete_job(job)

    def _followed(
        self, job: Figures, look: Callable[[str, Figures], None] = lambda _, __: None
    ) -> tuple[Figures, float]:
        """The result of a job that was followed by SSE to its end, and the seconds until then."""
        began = time.monotonic()
        self.jobs.append(job["id"])
        for event in self.client.events(job["id"]):
            look(event.type, event.data)
        seconds = time.monotonic() - began
        ended = self.client.job(job["id"])
        if ended["state"] != "succeeded":
            error = ended["error"] or {}
            told = f"{error.get('code')}: {error.get('message')}"
            raise RuntimeError(f"the {ended['kind']} job {ended['state']}, {told}")
        return ended["result"], round(seconds, 1)

    def _classified(self, part: Part) -> tuple[Confusion, float, float]:
        """The answers to all test images, as many at once as take a few seconds; their mean log loss at temperature 1;
        and the largest logit, of whose size float32 can be exact to a ten-millionth only.
        """
        confusion: Confusion = Counter()
        lost, largest, done, at_once = 0.0, 0.0, 0, 1
        classes = self.client.labels(self.ref)["labels"]
        while done < len(part.tests):
            some = part.tests[done : done + at_once]
            found, seconds = self._asked([image for image, _ in some])
            for (_, true), result in zip(some, found, strict=True):
                if result["error"]:
                    raise RuntimeError(f"a test image was refused: {result['error']}")
                confusion[true, result["top_k"][0]["label"]] += 1
                logits = result["logits"]
                highest = max(logits)
                spread = math.log(sum(math.exp(each - highest) for each in logits))
                lost += highest + spread - logits[classes.index(true)]
                largest = max(largest, *map(abs, logits))
            done, at_once = done + len(some), max(1, min(100, int(REQUEST_SECONDS / seconds * len(some))))
        return confusion, lost / done, largest

    def _asked(self, files: list[bytes]) -> tuple[list[Figures], float]:
        """The results for some images, and how long that took."""

        def ask() -> Figures:
            return self.client.classify(files, model=self.ref, top_k=1, outputs=("logits",))

        began = time.monotonic()
        return again(ask)["results"], time.monotonic() - began


def different(one: Confusion, other: Confusion) -> int:
    """The least number of images that two ways to classify the same ones answer differently."""
    return sum(abs(one[pair] - other[pair]) for pair in one.keys() | other.keys()) // 2
