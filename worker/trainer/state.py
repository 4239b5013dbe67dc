"""Everything about a run that a kill must not take: what a checkpoint holds, and how it is brought back."""

import copy
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from models.checkpoint import Checkpoint
from worker.trainer import optimizer as optimizers
from worker.trainer.data import Normalisation


@dataclass(kw_only=True)
class RunState:
    """`epoch_step` steps of epoch `epoch` (from 0) are done; `sums` float64 (3,) = loss, correct, images of this epoch.

    `correct` has fractions where images are mixed: an image counts by its share of the predicted class.

    `lr` is the learning rate of the last step; `elapsed` and `epoch_elapsed` are seconds of all steps, of this epoch's;
    `ran` those of the whole run, with loading, validations and checkpoints (in older checkpoints: of all steps).

    `best` is the epoch of the best val top-1, `kept` the one whose weights become the model.
    `ended` says why training is over: "epochs", "max_seconds", "patience", "target_accuracy", "finish" (somebody asked
    for the end); null = it goes on. `settings` are the recipe's fields that were changed meanwhile, `changes` at which
    steps, `asked` how many checkpoints have been asked for. `normalisation` is what the recipe says or was measured
    over all of train; null in checkpoints that are older than that it is kept.
    """

    network: nn.Module
    optimizer: torch.optim.Optimizer
    average: nn.Module | None
    epoch: int = 0
    epoch_step: int = 0
    step: int = 0
    lr: float | None = None
    elapsed: float = 0.0
    epoch_elapsed: float = 0.0
    ran: float = 0.0
    ended: str | None = None
    best: dict[str, Any] | None = None
    kept: dict[str, Any] | None = None
    kept_weights: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    changes: list[dict[str, Any]] = field(default_factory=list)
    asked: int = 0
    normalisation: Normalisation | None = None
    sums: Tensor = field(default_factory=lambda: torch.zeros(3, dtype=torch.float64))

    @property
    def begun(self) -> int:
        """Epochs that have begun, those that are done among them."""
        return self.epoch + (self.epoch_step > 0)

    @property
    def judged(self) -> nn.Module:
        """The network that is validated and kept: the averaged one where there is one."""
        return self.network if self.average is None else self.average

    @torch.no_grad()
    def move_average(self, *, decay: float) -> None:
        """Exponential moving average of weights and normalisation statistics; young averages forget faster."""
        weight = 1 - min(decay, (1 + self.step) / (10 + self.step))
        numbers, counts = self._averaged
        torch._foreach_lerp_(*numbers, weight)
        if counts[0]:  # of batches; a network without normalisation has none
            torch._foreach_copy_(*counts)

    @cached_property
    def _averaged(self) -> tuple[tuple[list[Tensor], list[Tensor]], tuple[list[Tensor], list[Tensor]]]:
        """The average's tensors and the network's, of floating point and of whole numbers."""
        if self.average is None:
            return ([], []), ([], [])
        pairs = list(zip(self.average.state_dict().values(), self.network.state_dict().values(), strict=True))
        numbers = [pair for pair in pairs if pair[0].is_floating_point()]
        counts = [pair for pair in pairs if not pair[0].is_floating_point()]
        return _apart(numbers), _apart(counts)

    def is_finite(self) -> bool:
        """Whether no weight, statistic or tensor of the optimizer has become infinite or not a number."""
        tensors = [*self.network.state_dict().values(), *optimizers.state(self.optimizer).values()]
        if self.average is not None:
            tensors += self.average.state_dict().values()
        finite = [tensor.isfinite().all().to(self.sums.device) for tensor in tensors if tensor.is_floating_point()]
        return bool(torch.stack(finite).all())

    def checkpoint(self, identity: dict[str, Any]) -> Checkpoint:
        groups = {
            "network": self.network.state_dict(),
            "optimizer": optimizers.state(self.optimizer),
            "average": self.average.state_dict() if self.average is not None else {},
            "kept": self.kept_weights,
            "run": {"sums": self.sums},
        }
        return Checkpoint(
            step=self.step,
            state={
                "identity": identity,
                "epoch": self.epoch,
                "epoch_step": self.epoch_step,
                "lr": self.lr,
                "elapsed": self.elapsed,
                "epoch_elapsed": self.epoch_elapsed,
                "ran": self.ran,
                "ended": self.ended,
                "best": self.best,
                "kept": self.kept,
                "history": self.history,
                "settings": self.settings,
                "changes": self.changes,
                "asked": self.asked,
                "normalisation": self.normalisation,
            },
            tensors={
                f"{group}/{name}": tensor for group, tensors in groups.items() for name, tensor in tensors.items()
            },
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        def group(wanted: str) -> dict[str, Tensor]:
            start = wanted + "/"
            return {name.removeprefix(start): t for name, t in checkpoint.tensors.items() if name.startswith(start)}

        self.network.load_state_dict(group("network"))
        optimizers.restore(self.optimizer, group("optimizer"))
        if self.average is not None:
            self.average.load_state_dict(group("average"))
        self.kept_weights = group("kept")
        self.sums = group("run")["sums"].to(self.sums.device)
        self.step = checkpoint.step
        state = checkpoint.state
        self.epoch, self.epoch_step, self.lr = state["epoch"], state["epoch_step"], state["lr"]
        self.elapsed, self.epoch_elapsed = state["elapsed"], state["epoch_elapsed"]
        self.ran = state.get("ran", self.elapsed)
        self.ended, self.history = state["ended"], state["history"]
        self.best, self.kept = state["best"], state["kept"]
        self.settings, self.changes, self.asked = state["settings"], state["changes"], state["asked"]
        stored = state.get("normalisation")
        self.normalisation = stored and (tuple(stored[0]), tuple(stored[1]))


def averaged_copy(network: nn.Module) -> nn.Module:
    return copy.deepcopy(network).requires_grad_(requires_grad=False)


def _apart(pairs: list[tuple[Tensor, Tensor]]) -> tuple[list[Tensor], list[Tensor]]:
    return [kept for kept, _ in pairs], [new for _, new in pairs]
