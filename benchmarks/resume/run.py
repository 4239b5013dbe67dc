"""The small real training that is hurt: its data, its claims as forked processes, and what of it must be equal."""

import hashlib
import io
import json
import os
import select
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from models import checkpoint_files
from store import faults
from store.dataset_writer import DatasetWriter, Sample
from store.datasets import Report, Source
from store.layout import Layout
from worker.job_arguments import JobArguments
from worker.job_process import run
from worker.trainer import files
from worker.trainer.train import train

RECIPE: dict[str, Any] = {
    "network": "cifar/resnet8",
    "channels": 1,
    "image_size": 12,
    "batch_size": 8,
    "epochs": 3,
    "warmup_epochs": 1,
    "lr": 0.05,
    "ema_decay": 0.9,
    "crop_padding": 2,
    "horizontal_flip": True,
    "cutout": 3,
    "mixup": 0.2,
    "sampling": "balanced",
    "precision": "fp32",
    "val_fraction": 0.2,
    "checkpoint_seconds": 0,
    "loader": "stream",
}
SAME = ("correct", "total", "top1", "log_loss", "ece", "temperature", "val_top1", "val_loss", "kept_epoch", "changes")


def write_dataset(layout: Layout, images: int) -> None:
    """Pictures of two sizes, so that they stay files: where the light square lies is the class."""
    generator = np.random.default_rng(0)
    folder = layout.dataset("ds_resume")
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir()
    writer = DatasetWriter(folder)
    for number in range(images):
        size, label = (16, 18)[number % 5 == 0], number % 3
        pixels = generator.integers(0, 60, (size, size, 1), dtype=np.uint8)
        third = size // 3
        top = generator.integers(0, size - third)
        pixels[top : top + third, label * third : (label + 1) * third] = 220
        file = io.BytesIO()
        Image.fromarray(pixels[:, :, 0]).save(file, "PNG")
        writer.add(
            Sample(
                key=f"{number:06}",
                split="test" if number % 5 == 4 else "train",
                label=label,
                encoded=file.getvalue(),
                pixels=pixels,
                size=(size, size),
                mode="L",
            )
        )
    writer.assign_splits()
    writer.finish(
        dataset_id="ds_resume",
        name="resume",
        source=Source(format="image_folder"),
        classes=("left", "middle", "right"),
        report=Report(images=images),
    )


@dataclass(frozen=True)
class Ended:
    """How a claim ended: a signal is negative; the lines that it said."""

    code: int
    said: list[dict[str, Any]]

    @property
    def error(self) -> str | None:
        """The code of the error that it told of."""
        return next((line["data"]["code"] for line in self.said if line["type"] == "error"), None)

    @property
    def steps(self) -> list[int]:
        """Of the checkpoints that it told of."""
        return [line["data"]["step"] for line in self.said if line["type"] == "checkpoint"]


class Run:
    """A job's folder and its claims. `folder` may be elsewhere than in the data directory."""

    def __init__(
        self,
        layout: Layout,
        name: str,
        *,
        folder: Path | None = None,
        dataset: str = "ds_resume",
        **overrides: Any,  # noqa: ANN401 - a recipe's fields
    ) -> None:
        self._layout, self.folder, self.claims = layout, folder or layout.job(name), 0
        self._logs = layout.root / "logs" / name
        self._logs.mkdir(parents=True)
        self.folder.mkdir(parents=True)
        spec = {"kind": "train", "dataset": dataset, "recipe": "fashion-mnist-small", "register_as": "resume"}
        (self.folder / "spec.json").write_text(json.dumps({**spec, "overrides": {**RECIPE, **overrides}}))

    @property
    def errors(self) -> Path:
        """The claims' standard error."""
        return self._logs / "stderr.log"

    def claim(
        self,
        fault: str | None = None,
        *,
        kill_in_save: tuple[int, float] | None = None,
        prepare: Callable[[], None] | None = None,
    ) -> Ended:
        """Train on in a process of its own until it ends: by itself, at the fault, or so many seconds into a save.

        `prepare` is called in the process, before.
        """
        self.claims += 1
        log = self._logs / f"claim-{self.claims}.lines"
        pid = os.fork()
        if pid == 0:
            self._train(log, fault, prepare)
        if kill_in_save is not None:
            self._kill_in_save(pid, *kill_in_save)
        _, status = os.waitpid(pid, 0)
        return Ended(os.waitstatus_to_exitcode(status), [json.loads(line) for line in _whole_lines(log)])

    def _kill_in_save(self, pid: int, number: int, seconds: float) -> None:
        """Kill the process that long after its save `number` began, unless it ends before."""
        folder, watched = self.folder / f"claim-{self.claims}", os.pidfd_open(pid)
        seen: set[str] = set()
        while len(seen) < number and not select.select([watched], [], [], 0.0005)[0]:
            seen |= {name for name in names(folder) if name.startswith(".step-")}
        if len(seen) == number and not select.select([watched], [], [], seconds)[0]:
            os.kill(pid, signal.SIGKILL)
        os.close(watched)

    def _train(self, log: Path, fault: str | None, prepare: Callable[[], None] | None) -> None:
        """In the child: what `python -m worker.trainer` does, without its start. Does not return."""
        code = 70
        try:
            out = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
            os.dup2(out, 1)
            os.dup2(os.open(self.errors, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600), 2)
            faults._faults[:] = [faults._Fault.read(fault)] if fault else []  # noqa: SLF001 - as RESNETD_FAULT would
            if prepare is not None:
                prepare()
            files.write = _no_drawings  # they would take longer than all the rest
            at = JobArguments(run_dir=self.folder, claim=self.claims, data_dir=self._layout.root, device="cpu")
            code = run(lambda stop: train(at, stop))
        finally:
            os._exit(code)

    def outcome(self, ended: Ended) -> dict[str, Any]:
        """What must be equal: the weights' SHA-256, the metrics, the history of epochs."""
        result = next(line["data"] for line in ended.said if line["type"] == "result")
        model = self.folder / result["artifact"]
        last = checkpoint_files.newest(self.folder)
        epochs = [] if last is None else last.state["history"]
        return {
            "weights": hashlib.sha256((model / "weights.safetensors").read_bytes()).hexdigest(),
            "metrics": {name: result["metrics"][name] for name in SAME if name in result["metrics"]},
            "epochs": [{key: epoch[key] for key in ("epoch", "lr", "train", "val", "best")} for epoch in epochs],
        }


def _no_drawings(*_arguments: Any, **_more: Any) -> None:  # noqa: ANN401 - whatever is to be drawn
    pass


def names(folder: Path) -> list[str]:
    return os.listdir(folder) if folder.exists() else []  # noqa: PTH208 - many times a second


def _whole_lines(log: Path) -> Iterator[str]:
    text = log.read_text() if log.exists() else ""
    yield from text[: text.rfind("\n") + 1].splitlines()
