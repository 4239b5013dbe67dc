"""Trainings that are killed and go on, against ones that nobody disturbed: the same bits, or it is counted.

A kill at every step × every phase of a checkpoint's writing × loader workers 0 and 2; kills at random moments of saves;
checkpoints truncated and flipped; a disk that is full at any moment, memory that is short, numbers that are none. The
training is real and small: an augmented, averaged, streamed run of `cifar/resnet8` on made images; each claim is a
process of its own, forked with torch in memory, and a kill is a SIGKILL.
`python -m benchmarks.resume [--small] [--kills 500] [--damaged 1000] [--fills 100]`. The last line is one JSON object.
"""

import argparse
import hashlib
import io
import itertools
import json
import os
import random
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch._dynamo  # an optimizer's first step imports it: seconds for each process, and once for all that are forked
from PIL import Image

from models import checkpoint, checkpoint_files
from store import faults
from store.dataset_writer import DatasetWriter, Sample
from store.datasets import Dataset, ImageSummary, Report, Source, SplitSummary
from store.layout import Layout
from worker.job_arguments import JobArguments
from worker.job_process import DONE, run
from worker.trainer import files, optimizer, steps
from worker.trainer.train import train

#: Where a claim is killed, and at which passing: the second where the first would leave nothing new behind.
PHASES = {
    "training.stepped": 2,
    "checkpoint.tmp_written": 2,
    "checkpoint.durable": 2,
    "checkpoint.renamed": 1,
    "checkpoint.pruned": 1,
    "checkpoint.said": 1,
}
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
            seen |= {name for name in _names(folder) if name.startswith(".step-")}
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


def _names(folder: Path) -> list[str]:
    return os.listdir(folder) if folder.exists() else []  # noqa: PTH208 - many times a second


def _whole_lines(log: Path) -> Iterator[str]:
    text = log.read_text() if log.exists() else ""
    yield from text[: text.rfind("\n") + 1].splitlines()


def matrix(layout: Layout, undisturbed: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """A run for each phase and number of workers, killed there at every step."""
    kills: Counter[str] = Counter()
    different, unexpected = [], []
    for workers in (0, 2):
        for phase, again in PHASES.items():
            job = Run(layout, f"{phase}-{workers}", workers=workers, **overrides)
            passing = 1
            while True:
                ended = job.claim(f"{phase}:{passing}:kill")
                passing = again
                if ended.code != -signal.SIGKILL:
                    break
                kills[f"{phase}, {workers} workers"] += 1
            if ended.code != DONE:
                unexpected.append(f"{phase}, {workers} workers: exit status {ended.code}")
            elif job.outcome(ended) != undisturbed:
                different.append(f"{phase}, {workers} workers")
            shutil.rmtree(job.folder)
    return {"kills": kills.total(), "by_phase": dict(kills), "different": different, "unexpected": unexpected}


def kills_in_saves(
    layout: Layout, undisturbed: dict[str, Any], overrides: dict[str, Any], *, kills: int
) -> dict[str, Any]:
    """Kills at any moment of a save, of runs that save after every step; a new run begins where one came to its end."""
    chance = random.Random(0)
    done, halves, runs, unloadable, lost, different = 0, 0, 0, 0, 0, 0
    while done < kills:
        job, told = Run(layout, f"saves-{runs}", workers=2, **overrides), 0
        runs += 1
        while True:
            moment = (chance.randint(1, 3), chance.uniform(0, 0.02)) if done < kills else None
            ended = job.claim(kill_in_save=moment)
            if ended.code != -signal.SIGKILL:
                break
            done += 1
            halves += any(name.startswith(".step-") for name in _names(job.folder / f"claim-{job.claims}"))
            told = max([told, *ended.steps])
            places = checkpoint_files.found(job.folder)
            for _, _, place in places:
                try:
                    checkpoint.load(place)
                except checkpoint_files.CheckpointDamagedError:
                    unloadable += 1
            if told and (not places or checkpoint.load(places[0][2]).step < told):
                lost += 1
        if ended.code != DONE or job.outcome(ended) != undisturbed:
            different += 1
        shutil.rmtree(job.folder)
    return {
        "kills": done,
        "left_half_written": halves,
        "runs": runs,
        "unloadable": unloadable,
        "behind_what_was_told": lost,
        "different": different,
    }


def damage(layout: Layout, undisturbed: dict[str, Any], overrides: dict[str, Any], *, count: int) -> dict[str, Any]:
    """The newest checkpoint's files cut, flipped, emptied or taken away: seen each time, the one before it taken."""
    chance = random.Random(0)
    job = Run(layout, "damaged", workers=0, **overrides)
    job.claim("checkpoint.pruned:5:kill")
    (newest, _, folder), (before, _, _) = checkpoint_files.found(job.folder)
    good = {path: path.read_bytes() for path in sorted(folder.iterdir())}
    how: Counter[str] = Counter()
    undetected, not_the_one_before = 0, 0
    with open(os.devnull, "w") as quiet:  # noqa: PTH123 - a word for each on standard error is right, and much
        standard_error, sys.stderr = sys.stderr, quiet
        for _ in range(count):
            path = chance.choice(list(good))
            data, kind = bytearray(good[path]), chance.choice(["cut", "bit flipped", "byte changed", "emptied", "gone"])
            how[f"{path.name} {kind}"] += 1
            place = chance.randrange(len(data))
            if kind == "cut":
                del data[place:]
            elif kind == "bit flipped":
                data[place] ^= 1 << chance.randrange(8)
            elif kind == "byte changed":
                data[place] = (data[place] + chance.randrange(1, 256)) % 256
            elif kind == "emptied":
                data.clear()
            if kind == "gone":
                path.unlink()
            else:
                path.write_bytes(data)
            found = checkpoint.newest(job.folder)
            undetected += found is not None and found.step == newest
            not_the_one_before += found is None or found.step != before
            path.write_bytes(good[path])
        sys.stderr = standard_error
    next(iter(good)).write_bytes(b"damaged")
    ended = job.claim()
    return {
        "damaged": count,
        "how": dict(how),
        "undetected": undetected,
        "not_the_one_before": not_the_one_before,
        "different": int(ended.code != DONE or job.outcome(ended) != undisturbed),
    }


def full_disks(layout: Layout, undisturbed: dict[str, Any], overrides: dict[str, Any], *, fills: int) -> dict[str, Any]:
    """A run on a small file system that is filled up to a random rest: the claim ends, its last checkpoint stays."""
    chance = random.Random(0)
    place = layout.root / "small-disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        return {"skipped": f"no file system can be mounted here: {mounted.stderr.decode().strip()}"}
    ends: Counter[str] = Counter()
    different, damaged, left_behind, done, runs = 0, 0, 0, 0, 0
    try:
        while done < fills:
            job = Run(layout, f"full-{runs}", folder=place / "run", workers=0, **overrides)
            runs += 1
            ended = job.claim(f"checkpoint.said:{chance.randint(2, 4)}:kill")
            for _ in range(5):
                ballast, free = place / "ballast", shutil.disk_usage(place).free
                ballast.write_bytes(bytes(max(0, free - chance.randrange(3 * 2**19))))
                ended = job.claim()
                ballast.unlink()
                done += 1
                ends[f"exit status {ended.code}, {ended.error}"] += 1
                left_behind += any(name.startswith(".step-") for name in _names(job.folder / f"claim-{job.claims}"))
                damaged += _loadable(job.folder) == 0
                if ended.code == DONE:
                    break
            if ended.code != DONE:
                ended = job.claim()
            different += ended.code != DONE or job.outcome(ended) != undisturbed
            shutil.rmtree(job.folder)
    finally:
        subprocess.run(["umount", str(place)], check=False)
    return {
        "fills": done,
        "ends": dict(ends),
        "without_a_good_checkpoint": damaged,
        "left_half_written": left_behind,
        "different": different,
    }


def _loadable(run_dir: Path) -> int:
    """How many checkpoints can be loaded; RuntimeError where one cannot."""
    return len([checkpoint.load(place) for _, _, place in checkpoint_files.found(run_dir)])


def short_memory(layout: Layout, overrides: dict[str, Any]) -> dict[str, Any]:
    """A claim that may use little more memory than it starts with, for images that need much more."""
    job = Run(layout, "memory-short", **{**overrides, "image_size": 256, "cutout": 0, "epochs": 1, "workers": 0})
    job.claim("checkpoint.said:1:kill")
    ended = job.claim(prepare=_limit_memory)
    kept = checkpoint.newest(job.folder)
    return {"ends": f"exit status {ended.code}, {ended.error}", "checkpoint_kept": kept is not None and kept.step == 1}


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + 100 * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def larger_than_memory(layout: Layout) -> dict[str, str]:
    """200 MB of pixels for a process that may have 100 MB: streamed they train, in memory they are refused."""
    count, size, classes = 50_000, 64, 2
    folder = layout.dataset("ds_large")
    (folder / "data").mkdir(parents=True)
    np.lib.format.open_memmap(folder / "data" / "train.images.npy", "w+", np.uint8, (count, size, size, 1)).flush()
    labels = np.arange(count) % classes
    np.save(folder / "data" / "train.labels.npy", labels)
    Dataset(
        id="ds_large",
        name="large",
        digest="sha256:" + "0" * 64,
        created_at=datetime.now(UTC),
        source=Source(format="idx"),
        classes=("even", "odd"),
        splits={"train": SplitSummary(images=count, per_class=tuple(np.bincount(labels).tolist()))},
        image=ImageSummary(sizes={}, modes={}, uniform=True, height=size, width=size, channels=1),
        report=Report(images=count),
    ).write(folder)
    ends = {}
    for loader in ("memory", "stream"):
        job = Run(layout, f"large-{loader}", dataset="ds_large", image_size=size, loader=loader, workers=2)
        ended = job.claim("training.stepped:3:kill", prepare=_limit_data)
        trained = ended.code == -signal.SIGKILL and max(ended.steps) == 2  # the third is not saved yet
        ends[loader] = "trained" if trained else f"exit status {ended.code}, {ended.error}"
    return ends


def _limit_data() -> None:
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    limit = int(fields["VmData"].split()[0]) * 1024 + 100 * 2**20  # what is mapped from files is not counted
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def not_numbers(layout: Layout, undisturbed: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """NaN in the loss, in a gradient, in a weight, at the second step of a claim that saves after each."""
    ends = {}
    for where, spoil in (("loss", _spoil_loss), ("gradient", _spoil_gradient), ("weight", _spoil_weight)):
        job = Run(layout, f"nan-{where}", workers=0, **overrides)
        ended = job.claim(prepare=spoil)
        kept = checkpoint.newest(job.folder)
        finite = kept is not None and all(t.isfinite().all() for t in kept.tensors.values() if t.is_floating_point())
        again = job.claim()
        ends[where] = {
            "ends": f"exit status {ended.code}, {ended.error}",
            "last_checkpoint": None if kept is None else kept.step,
            "finite": bool(finite),
            "different": int(again.code != DONE or job.outcome(again) != undisturbed),
        }
    return ends


_SPOILED_STEP = 2


def _spoil_loss() -> None:
    calls, loss = itertools.count(1), vars(steps)["cross_entropy"]

    def spoiled(*arguments: Any, **more: Any) -> torch.Tensor:  # noqa: ANN401 - handed on
        computed: torch.Tensor = loss(*arguments, **more)
        return computed * (torch.nan if next(calls) == _SPOILED_STEP else 1.0)

    vars(steps)["cross_entropy"] = spoiled


def _spoil_gradient() -> None:
    _hook(lambda parameter: parameter.grad.view(-1)[:1].fill_(torch.nan), before=True)


def _spoil_weight() -> None:
    _hook(lambda parameter: parameter.data.view(-1)[:1].fill_(torch.inf), before=False)


def _hook(spoil: Callable[[Any], Any], *, before: bool) -> None:
    """Have the optimizer's second step followed or preceded by something."""
    build = optimizer.build

    def spoiling(*arguments: Any, **more: Any) -> torch.optim.Optimizer:  # noqa: ANN401 - handed on
        built, calls = build(*arguments, **more), itertools.count(1)

        def strike(which: torch.optim.Optimizer, _arguments: Any, _more: Any) -> None:  # noqa: ANN401 - torch's own
            if next(calls) == _SPOILED_STEP:
                spoil(which.param_groups[0]["params"][0])

        built.register_step_pre_hook(strike) if before else built.register_step_post_hook(strike)
        return built

    optimizer.build = spoiling


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="shorter runs, for the test suite")
    parser.add_argument("--kills", type=int, default=500, help="at random moments of saves")
    parser.add_argument("--fills", type=int, default=100, help="of a small disk")
    parser.add_argument("--damaged", type=int, default=1000, help="checkpoints")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    began = time.monotonic()
    overrides: dict[str, Any] = {"epochs": 2} if arguments.small else {}
    with tempfile.TemporaryDirectory(prefix="resume-") as place:
        layout = Layout(Path(place)).create()
        write_dataset(layout, 42 if arguments.small else 100)
        job = Run(layout, "undisturbed", **overrides)
        ended = job.claim()
        if ended.code != DONE:
            raise SystemExit(f"the undisturbed run failed:\n{job.errors.read_text()}")
        undisturbed = job.outcome(ended)
        memory = Run(layout, "memory", loader="memory", **overrides)
        figures = {
            "benchmark": "resume",
            "small": arguments.small,
            "steps": max(ended.steps),
            "stream_equals_memory": memory.outcome(memory.claim()) == undisturbed,
            "every_step": matrix(layout, undisturbed, overrides),
            "saves": kills_in_saves(layout, undisturbed, overrides, kills=arguments.kills),
            "damage": damage(layout, undisturbed, overrides, count=arguments.damaged),
            "disk_full": full_disks(layout, undisturbed, overrides, fills=arguments.fills),
            "short_memory": short_memory(layout, overrides),
            "larger_than_memory": larger_than_memory(layout),
            "not_numbers": not_numbers(layout, undisturbed, overrides),
            "seconds": round(time.monotonic() - began, 1),
        }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
