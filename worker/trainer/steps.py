"""Training steps: a batch's gradient, in as many parts as the recipe says and on as many devices, then the update."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from models.recipes import Recipe
from models.runtime import Normalise
from worker.job_process import JobRefused
from worker.trainer import augment, freezing, mixing, precision
from worker.trainer.compiling import compiled
from worker.trainer.data import TrainingData
from worker.trainer.distributed import World, shares
from worker.trainer.feed import Batch, feed
from worker.trainer.loss import Targets, class_weights, cross_entropy
from worker.trainer.optimizer import learning_rate
from worker.trainer.split_sizes import FEWER_THAN_DEVICES
from worker.trainer.state import RunState

Step = Callable[[Recipe], float]


@dataclass(frozen=True, kw_only=True)
class _Epoch:
    """`order` int64 (N,): the dataset's sample of each row; and what is drawn for each row."""

    order: Tensor
    draws: augment.Draws


class Steps:
    """Moves `state` on, a step at a time. What a step computes is a function of the recipe, the data and the state."""

    def __init__(
        self, *, recipe: Recipe, data: TrainingData, classes: int, state: RunState, device: torch.device, world: World
    ) -> None:
        self.data, self.state, self.device, self.world = data, state, device, world
        samples = len(data.train)
        self.batch_size = min(recipe.batch_size, samples)
        self.per_epoch = samples // self.batch_size  # what is left over is another part in each epoch
        if self.batch_size < world.size:
            raise JobRefused(*FEWER_THAN_DEVICES)
        self._parts = [
            torch.from_numpy(places).to(device)
            for places in shares(
                self.batch_size,
                parts=min(recipe.accumulate, self.batch_size // world.size),
                world=world,
                mixed=bool(recipe.mixup or recipe.cutmix),
            )
        ]
        self._feed = feed(data.train.pixels, device, workers=recipe.workers)
        self._normalise = Normalise(data.preprocessing, device)
        self._height, self._width = data.preprocessing.height, data.preprocessing.width
        self._labels = torch.from_numpy(data.train.labels).to(device)
        weights = class_weights(recipe, data.train.labels, classes)
        self._class_weights = None if weights is None else weights.to(device)
        self._forward = compiled(state.network) if recipe.compile else state.network
        self._spread_frozen: bool | None = None  # how the network was when it was made parallel; None: it was not yet
        self._frozen: bool | None = None  # whether the backbone is; None: the network is not in a mode to train

    @contextmanager
    def epoch(self, recipe: Recipe) -> Iterator[Step]:
        """The rest of the state's epoch: call what is given for each step; it returns the step's learning rate."""
        state, samples = self.state, len(self.data.train)
        order = self._order(recipe, samples)
        epoch = _Epoch(
            order=torch.from_numpy(order).to(self.device),
            draws=augment.draw(recipe, samples=samples, epoch=state.epoch, device=self.device),
        )
        own = torch.cat(self._parts).cpu().numpy()
        self._frozen = None  # after a validation
        visits = order[: self.per_epoch * self.batch_size].reshape(self.per_epoch, self.batch_size)[
            state.epoch_step :, own
        ]
        with closing(self._feed.batches(visits)) as batches:
            yield lambda now: self._step(now, next(batches), epoch)

    def _order(self, recipe: Recipe, samples: int) -> npt.NDArray[np.int64]:
        seed, epoch = recipe.seed, self.state.epoch
        if recipe.sampling == "balanced":
            return augment.balanced_order(self.data.train.labels, seed=seed, epoch=epoch)
        return augment.order(samples=samples, seed=seed, epoch=epoch)

    def _step(self, recipe: Recipe, batch: Batch, epoch: _Epoch) -> float:
        state = self.state
        self._set_mode(frozen=freezing.is_frozen(recipe, step=state.step, steps_per_epoch=self.per_epoch))
        lr = learning_rate(recipe, step=state.step, steps_per_epoch=self.per_epoch)
        for group in state.optimizer.param_groups:
            group["lr"] = lr
        state.optimizer.zero_grad(set_to_none=True)
        sums, taken = torch.zeros_like(state.sums), 0
        weight = self._weight(epoch)
        with precision.float32_products(recipe):
            for number, places in enumerate(self._parts):
                part = Batch(pixels=batch.pixels, index=batch.index[taken : taken + len(places)])
                taken += len(places)
                with self._summing(last=number == len(self._parts) - 1):
                    sums += self._backward(recipe, part, self._rows(places), epoch, weight)
        state.sums += self.world.add(sums)
        if recipe.clip_norm is not None:
            nn.utils.clip_grad_norm_(state.network.parameters(), recipe.clip_norm)
        state.optimizer.step()
        state.step += 1
        state.epoch_step += 1
        if state.average is not None and recipe.ema_decay is not None:
            state.move_average(decay=recipe.ema_decay)
        return lr

    def _set_mode(self, *, frozen: bool) -> None:
        if frozen == self._frozen:
            return
        freezing.train_mode(self.state.network, frozen=frozen)
        self._frozen = frozen
        if self.world.size > 1 and frozen != self._spread_frozen:  # it must know which gradients there will be
            self._forward = self.world.parallel(self.state.network, self.device)
            self._spread_frozen = frozen

    def _summing(self, *, last: bool) -> AbstractContextManager[None]:
        """Gradients are summed over the devices once a step, with those of its last part."""
        if last or not isinstance(self._forward, DistributedDataParallel):
            return nullcontext()
        return self._forward.no_sync()

    def _rows(self, places: Tensor) -> Tensor:
        """The epoch's rows (B,) of these places in the step's batch."""
        return places + self.state.epoch_step * self.batch_size

    def _targets(self, epoch: _Epoch, rows: Tensor) -> Targets:
        """On several devices a mixed part has one image on top, the first one's partner: it is no target itself."""
        labels = self._labels[epoch.order[rows]]
        if epoch.draws.mix is None:
            return Targets(labels=labels)
        partners = labels.roll(1, 0)
        kept = mixing.kept(rows, epoch.draws.mix, height=self._height, width=self._width)
        own = slice(1 if self.world.size > 1 else 0, None)
        return Targets(labels=labels[own], partners=partners[own], kept=kept[own])

    def _weight(self, epoch: _Epoch) -> Tensor | float:
        """What the mean loss of the step's whole batch divides by, over all its parts and all devices."""
        if self._class_weights is None:
            return float(self.batch_size)
        targets = [self._targets(epoch, self._rows(places)) for places in self._parts]
        return self.world.add(torch.stack([each.weight(self._class_weights) for each in targets]).sum())

    def _backward(self, recipe: Recipe, part: Batch, rows: Tensor, epoch: _Epoch, weight: Tensor | float) -> Tensor:
        """Add the gradient of these images; float64 (3,): sum of losses, how many were right, how many.

        `rows` (B,) are the epoch's, `weight` is the whole batch's. Of a mixed image the prediction is right by the
        share that it has of the predicted class.
        """
        draws, targets = epoch.draws, self._targets(epoch, rows)
        images = augment.batch(part.pixels, part.index, rows, draws, recipe).to(self.device)
        inputs = augment.hide(self._normalise(images), rows, draws, cutout=recipe.cutout)
        if draws.mix is not None:
            inputs = mixing.mix(inputs, rows, draws.mix)[-len(targets.labels) :]
        if not recipe.channels_last:
            inputs = inputs.contiguous()
        with precision.autocast(recipe, self.device):
            logits = self._forward(inputs)
        loss = cross_entropy(logits, targets, smoothing=recipe.label_smoothing, weights=self._class_weights)
        own = len(targets.labels) if self._class_weights is None else targets.weight(self._class_weights)
        share = own / weight
        averaged = loss * share * self.world.size  # as gradients are, over the devices
        averaged.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
        predicted = logits.detach().argmax(1)
        correct = targets.mean_over(lambda labels: (predicted == labels).double()).sum()
        losses = loss.detach() * share * self.batch_size  # added over parts and devices, the batch's mean for each
        return torch.stack((losses, correct, torch.full_like(correct, len(targets.labels)))).double()
