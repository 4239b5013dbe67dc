"""The training loop: steps, epochs, validation, checkpoints, and when to stop."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from models import checkpoint as checkpoints
from models.recipes import Recipe
from models.runtime import Normalise, with_flip
from store.faults import point
from worker.job_process import JobRefused, JobStopped, Stop, emit
from worker.orders import Orders, OrdersFile
from worker.signs_of_life import SignsOfLife
from worker.trainer import evaluate, freezing, metrics
from worker.trainer.data import TrainingData
from worker.trainer.distributed import World
from worker.trainer.orders import ordered_end, take_settings, with_settings
from worker.trainer.progress import Phase, Progress
from worker.trainer.state import RunState
from worker.trainer.steps import Step, Steps

_COMPILING = 900.0  # seconds that a compiler may take for a step of a network that it has not seen
_LATE = 0.25  # seconds between two looks whether a progress line is late, because a step takes long


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
        test_images: int,
        claim_dir: Path,
        identity: dict[str, Any],
        stop: Stop,
        orders_file: OrdersFile,
        world: World,
    ) -> None:
        self.submitted, self.recipe = recipe, with_settings(recipe, state.settings)
        self.data, self.state, self.device, self.world = data, state, device, world
        self.orders_file, self.orders = orders_file, Orders()
        self.claim_dir, self.identity, self.stop = claim_dir, identity, stop
        self.normalise = Normalise(data.preprocessing, device)
        parts = recipe.parts(min(recipe.batch_size, len(data.train)))
        in_parts = recipe.model_copy(update={"accumulate": parts})
        self.steps = Steps(recipe=in_parts, data=data, classes=classes, state=state, device=device, world=world)
        self.steps_per_epoch = self.steps.per_epoch
        self.progress = Progress(
            epochs=self.recipe.epochs,
            steps=self.recipe.epochs * self.steps_per_epoch,
            images_per_step=self.steps.batch_size,
            validated=state.epoch,
            final_validations=world.size * (1 + test_images / len(data.val)) if len(data.val) else 0.0,  # by one device
        )
        self.alive = SignsOfLife(self.progress.repeat_when_late, period=_LATE)
        self.progress.step, self.progress.epoch = state.step, state.begun
        self.saved_at = self.counted_at = time.monotonic()
        self.saving_seconds = 0.0
        self.spoken_sums = (0.0, 0.0)
        self.compiled_frozen: bool | None = None  # what the compiler has seen of the network; None: nothing yet

    def run(self) -> None:
        """Returns when training has ended. Raises JobStopped after a checkpoint, JobRefused where the loss diverged."""
        self._take_orders(first=True)
        if self.state.ended is not None:
            return
        with self.alive:
            while self.state.ended is None:
                self._train_epoch()
                # An epoch that somebody cut short counts only where there is no whole one.
                if self.state.ended not in ("finish", "epochs") or self.state.kept is None:
                    self._close_epoch()
                if self.state.ended or self.world.agreed(self._checkpoint_due(at_epoch_end=True)):
                    self._checkpoint()

    def _take_orders(self, *, first: bool = False) -> None:
        """Look whether there are new orders; what they change is on disk before the next step."""
        state, new = self.state, self.orders_file.look() if self.world.leads else None
        content = self.world.agreed(None if new is None else new.model_dump())
        if content is None:
            return
        self.orders = orders = Orders.model_validate(content)
        if first:  # a run that goes on from another job's checkpoint: that one's requests are not this one's
            state.asked = min(state.asked, orders.checkpoint)
        recipe = take_settings(self.submitted, state, orders)
        if recipe is not None:
            self.recipe = recipe
            self.progress.epochs, self.progress.steps = recipe.epochs, recipe.epochs * self.steps_per_epoch
            if state.ended in ("epochs", "patience") and state.history:  # perhaps there is more to do now
                state.ended = why_ended(recipe, state.history)
        asked = orders.checkpoint if orders.checkpoint > state.asked else None
        if asked is not None:
            state.asked = asked
        if recipe is not None or asked is not None:
            self._checkpoint(asked=asked)

    def _train_epoch(self) -> None:
        state, recipe = self.state, self.recipe
        self.progress.enter("train")
        self.progress.epoch = state.epoch + 1
        self.progress.restart_clock()
        self.spoken_sums = (float(state.sums[0]), float(state.sums[2]))
        last = time.monotonic()
        with self.steps.epoch(recipe) as step:
            while state.epoch_step < self.steps_per_epoch:
                self._take_orders()
                state.ended = ordered_end(self.recipe, state, self.orders)
                if state.ended:
                    break
                self.progress.lr = state.lr = self._take(step)
                point("training.stepped")
                self.alive.moved()
                self.progress.step = state.step
                self.progress.count(self.steps.batch_size)
                now = time.monotonic()
                state.elapsed, state.epoch_elapsed = state.elapsed + now - last, state.epoch_elapsed + now - last
                last = now
                # One rank's clock and signals count for all.
                speak, stop, late, save = self.world.agreed(
                    [self.progress.due(), self.stop.requested, self._is_late(), self._checkpoint_due()]
                )
                if speak:
                    self._speak()
                if stop:  # before the time limit: a stopped epoch is not closed, so training has not ended
                    self._checkpoint()
                    raise JobStopped
                if late:
                    state.ended = "max_seconds"
                    break
                if save and state.epoch_step < self.steps_per_epoch:
                    self._checkpoint()
        self._speak()  # which waits for a GPU that is still at the last steps
        waited = time.monotonic() - last
        state.elapsed, state.epoch_elapsed = state.elapsed + waited, state.epoch_elapsed + waited

    def _take(self, step: Step) -> float:
        """The learning rate of one step.

        In a process's first one, and in the first after a thaw, a compiler may be at work for minutes.
        """
        frozen = freezing.is_frozen(self.recipe, step=self.state.step, steps_per_epoch=self.steps_per_epoch)
        if frozen == self.compiled_frozen or not self.recipe.compile:
            return step(self.recipe)
        self.compiled_frozen = frozen
        self.progress.say("compile")
        with self.alive.patient(_COMPILING):
            return step(self.recipe)

    def _speak(self) -> None:
        """A progress line with the mean loss since the last one; here a diverged loss is noticed."""
        loss, _, images = self.state.sums.tolist()
        if not math.isfinite(loss):
            raise _not_finite("the loss", self.state.step)
        spoken_loss, spoken_images = self.spoken_sums
        if images > spoken_images:
            self.progress.loss = round((loss - spoken_loss) / (images - spoken_images), 6)
            self.spoken_sums = (loss, images)
        self.progress.say("train")

    def _close_epoch(self) -> None:
        """Validate, remember the best, decide whether to go on. With nothing to validate on there is no best one."""
        state, recipe = self.state, self.recipe
        loss, correct, images = state.sums.tolist()
        began = time.monotonic()
        val = self.world.agreed(self._validate() if len(self.data.val) else None)
        this = {"epoch": state.epoch + 1, **(val or {})}
        best = state.best
        if val is not None:
            self.progress.validation_seconds = time.monotonic() - began
            if best is None or (val["top1"], -val["loss"]) > (best["top1"], -best["loss"]):
                state.best = best = this
        entry: dict[str, Any] = {
            "epoch": state.epoch + 1,
            "lr": state.lr,
            "train": {"loss": loss / images, "top1": correct / images},
            "val": val,
            "best": best is this,
            "seconds": round(state.epoch_elapsed, 3),
        }
        state.history.append(entry)
        emit("epoch", entry)
        if best is this or recipe.keep == "last":
            state.kept = this
            state.kept_weights = {k: v.detach().cpu().clone() for k, v in state.judged.state_dict().items()}
        state.epoch, state.epoch_step, state.epoch_elapsed = state.epoch + 1, 0, 0.0
        state.sums.zero_()
        self.progress.validated = state.epoch
        if state.ended is None:
            state.ended = why_ended(recipe, state.history)
        if state.ended is None and self.world.agreed(self._is_late()):
            state.ended = "max_seconds"

    def _validate(self) -> dict[str, float]:
        network = with_flip(self.state.judged.eval(), test_time_flip=self.recipe.test_time_flip)

        @torch.inference_mode()
        def compute(images: npt.NDArray[np.uint8]) -> metrics.Logits:
            computed: metrics.Logits = network(self.normalise(torch.from_numpy(images).to(self.device))).cpu().numpy()
            return computed

        speak = self.sign_of_life("validate")

        def between() -> None:
            if self.world.agreed(self.stop.requested):  # the epoch is not closed: whoever goes on validates it again
                self.state.ended = None
                self._checkpoint()
                raise JobStopped
            speak()

        logits = evaluate.logits(compute, self.data.val, between=between, world=self.world)
        loss = metrics.log_loss(logits, self.data.val.labels)
        if not math.isfinite(loss):
            raise _not_finite("the validation loss", self.state.step)
        return {"loss": loss, "top1": metrics.top_k(logits, self.data.val.labels, 1)}

    def _is_late(self) -> bool:
        """Whether the run has taken its `max_seconds`, all that it did before this moment included."""
        self._count_time()
        return self.recipe.max_seconds is not None and self.state.ran >= self.recipe.max_seconds

    def _count_time(self) -> None:
        now = time.monotonic()
        self.state.ran, self.counted_at = self.state.ran + now - self.counted_at, now

    def sign_of_life(self, phase: Phase) -> Callable[[], None]:
        self.progress.enter(phase)

        def speak() -> None:
            self.alive.moved()
            if self.progress.due():
                self.progress.say(phase)

        return speak

    def _checkpoint_due(self, *, at_epoch_end: bool = False) -> bool:
        """By time; and at an epoch's end, unless epochs are so short that saving would take a twentieth of them."""
        age = time.monotonic() - self.saved_at
        return age >= self.recipe.checkpoint_seconds or (at_epoch_end and age >= 20 * self.saving_seconds)

    def _checkpoint(self, *, asked: int | None = None) -> None:
        """Save the state, unless it is worth nothing: the checkpoint before it stays the last good one."""
        if not math.isfinite(float(self.state.sums[0])):
            raise _not_finite("the loss", self.state.step)
        if not self.state.is_finite():
            raise _not_finite("a weight", self.state.step)
        self._count_time()
        if self.world.leads:
            began = time.monotonic()
            folder = checkpoints.save(self.claim_dir, self.state.checkpoint(self.identity))
            self.saving_seconds = time.monotonic() - began
            line: dict[str, Any] = {"path": f"{self.claim_dir.name}/{folder.name}", "step": self.state.step}
            emit("checkpoint", line if asked is None else {**line, "asked": asked})
            point("checkpoint.said")
        self.saved_at = time.monotonic()
        self.progress.restart_clock()


def why_ended(recipe: Recipe, history: list[dict[str, Any]]) -> str | None:
    """Why training is over after the epochs of `history`, one or more; None where it goes on.

    The accuracy is reached, or it has not risen for too long, or all epochs are done.
    """
    top1 = [entry["val"]["top1"] for entry in history if entry["val"] is not None]
    if top1:
        best = max(top1)
        if recipe.target_accuracy is not None and best >= recipe.target_accuracy:
            return "target_accuracy"
        if recipe.patience is not None and len(top1) - 1 - top1.index(best) >= recipe.patience:
            return "patience"
    return "epochs" if len(history) >= recipe.epochs else None


def _not_finite(what: str, step: int) -> JobRefused:
    code = "weights_not_finite" if what == "a weight" else "loss_not_finite"
    return JobRefused(
        code,
        f"{what} became infinite or not a number, at step {step} or shortly before",
        "Lower lr, lengthen warmup_epochs, or use precision fp32; the last good checkpoint is kept.",
    )
