"""The trainer's own way of life without its mathematics.

The same process code, orders and checkpoint files as `worker.trainer`; a step is a hash and a millisecond. A spec's
`epochs` and `seed` mean what they mean, `batch_size` is the number of steps in an epoch, `weight_decay` the seconds
of a step. Every step that really ran is appended to `<data>/ran.jsonl`.
"""

import hashlib
import os
import time
from datetime import UTC, datetime
from typing import Any

import chain
import orjson
from history import append, now

from models import checkpoint_files as checkpoints
from models.manifest import GOLDEN, WEIGHTS, Lineage, Manifest, NetworkSpec, Preprocessing
from store.faults import point
from store.files import publish_dir, remove_tree
from worker.job_arguments import JobArguments, read_arguments
from worker.job_process import JobStopped, Stop, emit
from worker.orders import Orders, OrdersFile

PROGRESS_SECONDS = 0.05


class Toy:
    def __init__(self, arguments: JobArguments, stop: Stop) -> None:
        self.run_dir, self.claim_dir, self.claim = arguments.run_dir, arguments.claim_dir, arguments.claim
        self.stop = stop
        self.spec: dict[str, Any] = orjson.loads((self.run_dir / "spec.json").read_bytes())
        self.asked: dict[str, Any] = self.spec["overrides"]
        self.seed: int = self.asked["seed"]
        self.epoch_steps: int = self.asked["batch_size"]
        self.orders_file, self.orders = OrdersFile(self.claim_dir / "orders.json"), Orders()
        self.step, self.sha, self.checkpoints_asked = 0, chain.start(self.seed), 0
        self.saved_at = time.monotonic()
        self.ran = os.open(arguments.data_dir / "ran.jsonl", os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)

    def note(self, **what: Any) -> None:
        append(self.ran, {"t": now(), "job": self.run_dir.name, "claim": self.claim, "pid": os.getpid(), **what})

    def resume(self) -> None:
        checkpoints.sweep(self.run_dir / f"claim-{self.claim}")
        found = checkpoints.newest(self.run_dir)
        if found is not None:
            self.step, self.sha, self.checkpoints_asked = found.step, found.state["sha"], found.state["asked"]
        self.note(resumed=self.step, sha=self.sha)

    def checkpoint(self) -> None:
        asked, self.checkpoints_asked = self.orders.checkpoint, max(self.orders.checkpoint, self.checkpoints_asked)
        state = {"sha": self.sha, "asked": self.checkpoints_asked}
        checkpoints.save(self.claim_dir, checkpoints.StoredCheckpoint(self.step, state, self.sha.encode()))
        self.saved_at = time.monotonic()
        emit("checkpoint", {"claim": self.claim, "step": self.step, "asked": asked})
        point("checkpoint.said")

    @property
    def steps(self) -> int:
        """The last step, as it is asked for now."""
        return int(self.orders.settings.get("epochs", self.asked["epochs"])) * self.epoch_steps

    def train(self) -> None:
        said = 0.0
        while True:
            self.orders = self.orders_file.look() or self.orders
            if (self.orders.finish and self.step > 0) or self.step >= self.steps:
                return
            time.sleep(self.asked["weight_decay"])
            self.step += 1
            self.sha = chain.after(self.sha, self.step)
            self.note(step=self.step, sha=self.sha)
            point("training.stepped")
            if time.monotonic() - said >= PROGRESS_SECONDS:
                said = time.monotonic()
                emit("progress", {"claim": self.claim, "step": self.step, "steps": self.steps})
            if self.step % self.epoch_steps == 0:
                self.say_epoch()
            if self.stop.requested:
                self.checkpoint()
                raise JobStopped
            due = time.monotonic() - self.saved_at >= self.asked["checkpoint_seconds"]
            if due or self.orders.checkpoint > self.checkpoints_asked:
                self.checkpoint()

    def say_epoch(self) -> None:
        data = {"epoch": self.step // self.epoch_steps, "claim": self.claim, "step": self.step, "sha": self.sha}
        emit("epoch", {**data, "best": True})

    def publish(self) -> None:
        """A model version as the catalog wants it; its weights are the chain's last state."""
        place = f"claim-{self.claim}/model"
        target = self.run_dir / place
        draft = target.with_name(f".model.{self.claim}.tmp")
        remove_tree(draft)
        remove_tree(target)
        draft.mkdir(parents=True)
        weights = self.sha.encode()
        (draft / WEIGHTS).write_bytes(weights)
        (draft / GOLDEN).write_bytes(b"none")
        self.manifest(hashlib.sha256(weights).hexdigest()).write(draft)
        publish_dir(draft, target)
        emit("result", {"artifact": place, "metrics": {"step": self.step, "sha": self.sha, "claim": self.claim}})

    def manifest(self, weights: str) -> Manifest:
        lineage = Lineage(
            job=self.run_dir.name,
            dataset=self.spec["dataset"],
            dataset_name="toy",
            dataset_digest="sha256:" + "0" * 64,
            recipe=self.spec["recipe"],
            seed=self.seed,
            code_version="0",
            created_at=datetime.now(UTC),
        )
        return Manifest(
            network=NetworkSpec(name="cifar/resnet8", num_classes=2, in_channels=1),
            parameters=0,
            classes=("a", "b"),
            preprocessing=Preprocessing(channels=1, height=28, width=28, resize=28, mean=(0.5,), std=(0.5,)),
            metrics={"sha": self.sha},
            lineage=lineage,
            weights_sha256=weights,
            golden_sha256="",
        )


def train(stop: Stop) -> None:
    toy = Toy(read_arguments("toy_trainer", "Run one toy training."), stop)
    toy.resume()
    toy.train()
    toy.publish()
