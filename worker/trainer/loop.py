"""The training loop: steps, epochs, validation, checkpoints, and when to stop."""

import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from models import checkpoint as checkpoints
from models.recipes import Recipe
from models.runtime import Normalise
from store.faults import point
from worker.job_process import JobRefused, JobStopped, Stop, emit
from worker.orders import Orders, OrdersFile
from worker.trainer import augment, evaluate, metrics, mixing
from worker.trainer.data import TrainingData
from worker.trainer.loss import class_weights, cross_entropy
from worker.trainer.optimizer import learning_rate
from worker.trainer.orders import ordered_end, take_settings, with_settings
from worker.trainer.progress import Phase, Progress
from worker.trainer.state import RunState, update_average


class Loop:
    """Trains `state` to its end. All of a run's choices are the recipe's; all of its memory is the state.

    Orders take hold between two steps, and with new settings a checkpoint is written before the next step: a run that
    is resumed repeats no step under other settings than before.
    """

    def __init__(
        self,
        *,
        recipe: Recipe,
        data: TrainingData,
        classes: int,
        state: RunState,
        device: torch.device,
        claim_dir: Path,
        fingerprint: str,
        stop: Stop,
        orders_file: OrdersFile,
    ) -> None:
        self.submitted, self.recipe = recipe, with_settings(recipe, state.settings)
        self.data, self.state, self.device = data, state, device
        self.orders_file, self.orders = orders_file, Orders()
        self.claim_dir, self.fingerprint, self.stop = claim_dir, fingerprint, stop
        self.normalise = Normalise(data.preprocessing, device)
        self.pixels = _placed(data.train.pixels, device)
        self.labels = torch.from_numpy(data.train.labels).to(device)
        weights = class_weights(recipe, data.train.labels, classes)
        self.class_weights = None if weights is None else weights.to(device)
        samples = len(data.train)
        self.batch_size = min(recipe.batch_size, samples)
        self.steps_per_epoch = samples // self.batch_size  # what is left over is another part in each epoch
        self.progress = Progress(epochs=self.recipe.epochs, steps=self.recipe.epochs * self.steps_per_epoch)
        self.forward = _compiled(state.network) if recipe.compile else state.network
        self.progress.step, self.progress.epoch = state.step, state.epoch
        self.saved_at = time.monotonic()
        self.spoken_sums = (0.0, 0.0)

    def run(self) -> None:
        """Returns when training has ended. Raises JobStopped after a checkpoint, JobRefused where the loss diverged."""
        self._take_orders(first=True)
        while self.state.ended is None:
            started = time.monotonic()
            self._train_epoch()
            # An epoch that somebody cut short counts only where there is no whole one.
            if self.state.ended not in ("finish", "epochs") or self.state.kept is None:
                self._close_epoch(time.monotonic() - started)
            if self.state.ended or self._checkpoint_due():
                self._checkpoint()

    def _take_orders(self, *, first: bool = False) -> None:
        """Look whether there are new orders; what they change is on disk before the next step."""
        orders, state = self.orders_file.look(), self.state
        if orders is None:
            return
        self.orders = orders
        if first:  # a run that goes on from another job's checkpoint: that one's requests are not this one's
            state.asked = min(state.asked, orders.checkpoint)
        recipe = take_settings(self.submitted, state, orders)
        if recipe is not None:
            self.recipe = recipe
            self.progress.epochs, self.progress.steps = recipe.epochs, recipe.epochs * self.steps_per_epoch
            if state.ended in ("epochs", "patience") and state.best is not None:  # perhaps there is more to do now
                state.ended = why_ended(recipe, epochs_done=state.epoch, best=state.best)
        asked = orders.checkpoint if orders.checkpoint > state.asked else None
        if asked is not None:
            state.asked = asked
        if recipe is not None or asked is not None:
            self._checkpoint(asked=asked)

    def _train_epoch(self) -> None:
        state, recipe = self.state, self.recipe
        samples = len(self.data.train)
        order = torch.from_numpy(self._order(samples)).to(self.device)
        draws = augment.draw(recipe, samples=samples, epoch=state.epoch, device=self.device)
        state.network.train()
        self.progress.epoch = state.epoch + 1
        self.progress.restart_clock()
        self.spoken_sums = (float(state.sums[0]), float(state.sums[2]))
        last = time.monotonic()
        while state.epoch_step < self.steps_per_epoch:
            self._take_orders()
            state.ended = ordered_end(self.recipe, state, self.orders)
            if state.ended:
                break
            first = state.epoch_step * self.batch_size
            if state.step == 0 and recipe.compile:
                self.progress.say("compile")
            rows = torch.arange(first, first + self.batch_size, device=self.device)
            self._step(order[rows], rows, draws)
            now = time.monotonic()
            state.elapsed, last = state.elapsed + now - last, now
            if self.progress.due():
                self._speak()
            if self.stop.requested:  # before the time limit: a stopped epoch is not closed, so training has not ended
                self._checkpoint()
                raise JobStopped
            if recipe.max_seconds is not None and state.elapsed >= recipe.max_seconds:
                state.ended = "max_seconds"
            if state.ended:
                break
            if state.epoch_step < self.steps_per_epoch and self._checkpoint_due():
                self._checkpoint()
        self._speak()

    def _order(self, samples: int) -> npt.NDArray[np.int64]:
        seed, epoch = self.recipe.seed, self.state.epoch
        if self.recipe.sampling == "balanced":
            return augment.balanced_order(self.data.train.labels, seed=seed, epoch=epoch)
        return augment.order(samples=samples, seed=seed, epoch=epoch)

    def _step(self, samples: Tensor, rows: Tensor, draws: augment.Draws) -> None:
        """One batch: gradients, in as many parts as the recipe says, then the update. `rows` are those of the draws."""
        state, recipe = self.state, self.recipe
        lr = learning_rate(recipe, step=state.step, steps_per_epoch=self.steps_per_epoch)
        for group in state.optimizer.param_groups:
            group["lr"] = lr
        state.optimizer.zero_grad(set_to_none=True)
        for part, part_rows in zip(samples.chunk(recipe.accumulate), rows.chunk(recipe.accumulate), strict=True):
            state.sums += self._backward(part, part_rows, draws, share=len(part) / len(samples))
        if recipe.clip_norm is not None:
            nn.utils.clip_grad_norm_(state.network.parameters(), recipe.clip_norm)
        state.optimizer.step()
        state.step += 1
        state.epoch_step += 1
        if state.average is not None and recipe.ema_decay is not None:
            update_average(state.average, state.network, decay=recipe.ema_decay, step=state.step)
        self.progress.count(len(samples))
        self.progress.lr, self.progress.step = lr, state.step

    def _backward(self, samples: Tensor, rows: Tensor, draws: augment.Draws, *, share: float) -> Tensor:
        """Add `share` of these images' gradients; float64 (3,): sum of losses, how many were right, how many."""
        recipe = self.recipe
        images = augment.batch(self.pixels, samples, rows, draws, recipe).to(self.device)
        inputs = augment.hide(self.normalise(images), rows, draws, cutout=recipe.cutout)
        labels, kept = self.labels[samples], None
        if draws.mix is not None:
            inputs, kept = mixing.mix(inputs, rows, draws.mix)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=recipe.precision == "bf16"):
            logits = self.forward(inputs)
        loss = cross_entropy(logits, labels, smoothing=recipe.label_smoothing, weights=self.class_weights, kept=kept)
        (loss * share).backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
        correct = (logits.detach().argmax(1) == labels).sum()
        return torch.stack((loss.detach() * len(samples), correct, correct.new_tensor(len(samples)))).double()

    def _speak(self) -> None:
        """A progress line with the mean loss since the last one; here a diverged loss is noticed."""
        loss, _, images = self.state.sums.tolist()
        if not math.isfinite(loss):
            raise _not_finite()
        spoken_loss, spoken_images = self.spoken_sums
        if images > spoken_images:
            self.progress.loss = round((loss - spoken_loss) / (images - spoken_images), 6)
            self.spoken_sums = (loss, images)
        self.progress.say("train", images_per_step=self.batch_size)

    def _close_epoch(self, seconds: float) -> None:
        """Validate, remember the best, decide whether to go on."""
        state, recipe = self.state, self.recipe
        loss, correct, images = state.sums.tolist()
        val = self._validate()
        this = {"epoch": state.epoch + 1, **val}
        best = state.best
        if best is None or (val["top1"], -val["loss"]) > (best["top1"], -best["loss"]):
            state.best = best = this
        entry: dict[str, Any] = {
            "epoch": state.epoch + 1,
            "lr": self.progress.lr,
            "train": {"loss": loss / images, "top1": correct / images},
            "val": val,
            "best": best is this,
            "seconds": round(seconds, 3),
        }
        state.history.append(entry)
        emit("epoch", entry)
        if best is this or recipe.keep == "last":
            state.kept = this
            state.kept_weights = {k: v.detach().cpu().clone() for k, v in state.judged.state_dict().items()}
        state.epoch, state.epoch_step = state.epoch + 1, 0
        state.sums.zero_()
        if state.ended is None:
            state.ended = why_ended(recipe, epochs_done=state.epoch, best=best)

    def _validate(self) -> dict[str, float]:
        network = self.state.judged.eval()

        @torch.inference_mode()
        def compute(images: npt.NDArray[np.uint8]) -> metrics.Logits:
            computed: metrics.Logits = network(self.normalise(torch.from_numpy(images).to(self.device))).cpu().numpy()
            return computed

        speak = self.sign_of_life("validate")

        def between() -> None:
            if self.stop.requested:  # the epoch is not closed: whoever goes on validates it again
                self.state.ended = None
                self._checkpoint()
                raise JobStopped
            speak()

        logits = evaluate.logits(compute, self.data.val, between=between)
        loss = metrics.log_loss(logits, self.data.val.labels)
        if not math.isfinite(loss):
            raise _not_finite()
        return {"loss": loss, "top1": metrics.top_k(logits, self.data.val.labels, 1)}

    def sign_of_life(self, phase: Phase) -> Callable[[], None]:
        def speak() -> None:
            if self.progress.due():
                self.progress.say(phase, images_per_step=self.batch_size)

        return speak

    def _checkpoint_due(self) -> bool:
        return time.monotonic() - self.saved_at >= self.recipe.checkpoint_seconds

    def _checkpoint(self, *, asked: int | None = None) -> None:
        if not math.isfinite(float(self.state.sums[0])):
            raise _not_finite()
        folder = checkpoints.save(self.claim_dir, self.state.checkpoint(self.fingerprint))
        self.saved_at = time.monotonic()
        self.progress.restart_clock()
        line: dict[str, Any] = {"path": f"{self.claim_dir.name}/{folder.name}", "step": self.state.step}
        emit("checkpoint", line if asked is None else {**line, "asked": asked})
        point("checkpoint.said")


def why_ended(recipe: Recipe, *, epochs_done: int, best: dict[str, Any]) -> str | None:
    """Why training is over after `epochs_done` epochs, or None: the accuracy is reached, it stalls, or all are done."""
    if recipe.target_accuracy is not None and best["top1"] >= recipe.target_accuracy:
        return "target_accuracy"
    if recipe.patience is not None and epochs_done - best["epoch"] >= recipe.patience:
        return "patience"
    return "epochs" if epochs_done >= recipe.epochs else None


def _placed(pixels: npt.NDArray[np.uint8], device: torch.device) -> Tensor:
    """The pixels on the device where they take at most half of its free memory, else in the machine's."""
    tensor = torch.from_numpy(pixels)
    if device.type == "cuda" and pixels.nbytes <= torch.cuda.mem_get_info(device)[0] // 2:
        return tensor.to(device)
    return tensor


def _compiled(network: nn.Module) -> Callable[[Tensor], Tensor]:
    if not any(shutil.which(name) for name in ("c++", "g++", "clang++", "cc")):
        emit("warning", {"code": "no_compiler", "message": "no C++ compiler was found; training goes on uncompiled"})
        return network
    compiled: Callable[[Tensor], Tensor] = torch.compile(network)
    return compiled


def _not_finite() -> JobRefused:
    return JobRefused(
        "loss_not_finite",
        "the loss became infinite or not a number",
        "Lower lr, lengthen warmup_epochs, or use precision fp32.",
    )
