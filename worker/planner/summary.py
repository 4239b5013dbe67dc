"""The plan as JSON: every figure, where it comes from, and why one is missing."""

import math
import socket
from dataclasses import dataclass
from typing import Any, Literal

from models.recipes import Recipe
from worker.evaluator.reader import batch_size as evaluation_batch
from worker.planner.contention import MACHINE_BUSY
from worker.planner.estimate import Speed, run_seconds
from worker.planner.hints import advice, fewer_at_once, settings
from worker.planner.measuring import Measured, rounded, sharing
from worker.planner.memory import data_bytes, largest, needed
from worker.planner.problems import Problem, in_order, note, warning, without_effect
from worker.trainer.split_sizes import Sizes

#: Why there are no measured figures.
Reason = Literal["refused", "device_busy", "not_finished", "out_of_memory"]
MOST = 8192  # a recipe's largest batch_size
FEW_STEPS = 3


@dataclass(kw_only=True)
class Plan:
    """What is known so far."""

    recipe: Recipe
    sizes: Sizes
    parameters: int
    flops_per_image: int
    curve: tuple[list[int], list[float]]
    device_name: str
    problems: list[Problem]
    max_seconds: float | None = None
    overridden: tuple[str, ...] = ()
    measured: Measured | None = None
    cached: bool = False

    @property
    def refused(self) -> bool:
        return any(problem.severity == "error" for problem in self.problems)

    def as_json(self, *, without: Reason) -> dict[str, Any]:
        """The plan; `without` says why nothing was measured, where that is so."""
        sizes, recipe, measured = self.sizes, self.recipe, self.measured
        steps, values = self.curve
        told: dict[str, Any] = {
            "recipe": recipe.model_dump(mode="json"),
            "images": {"train": sizes.train, "val": sizes.val, "test": sizes.test},
            "parameters": self.parameters,
            "flops_per_image": self.flops_per_image,
            "steps_per_epoch": sizes.steps_per_epoch,
            "steps": recipe.epochs * sizes.steps_per_epoch,
            "learning_rate": {"steps": steps, "values": values},
            "device": {"worker": socket.gethostname(), "name": self.device_name, "type": None},
            "images_per_second": None,
            "eta_seconds": None,
            "eta": None,
            "memory": None,
            "largest_batch_size": None,
            "largest_batch": None,
            "measured": {"reason": without, "cached": False},
        }
        problems = list(self.problems)
        computes = self.device_name if measured is None else measured.device["type"]
        if computes == "cpu" and recipe.precision == "tf32" and "precision" in self.overridden:
            reason = "a CPU has no tf32 and computes in fp32"
            problems.append(without_effect("precision", reason, "Leave it out, or train on a GPU."))
        if measured is not None:
            told |= self._figures(measured)
            problems += self._about(measured, told)
        return {**told, "problems": [problem.as_json() for problem in in_order(problems)]}

    def _figures(self, measured: Measured) -> dict[str, Any]:
        devices, load = self._sharing(measured), measured.load_images_per_second
        train, evaluate = (rate * devices for rate in (measured.images_per_second, measured.evaluate_images_per_second))
        test = measured.evaluate_images_per_second
        if measured.streamed:  # whoever needs an image waits for it, and the devices read from one disk
            train, evaluate, test = (min(rate, load) for rate in (train, evaluate, test))
        speed = Speed(
            train=train,
            evaluate=evaluate,
            test=test,
            load=load,
            save=measured.save_seconds,
            start=measured.start_seconds,
        )
        eta = run_seconds(self.recipe, self.sizes, speed, streamed=measured.streamed)
        peak, batch = self._peak(measured), self._largest(measured)
        return {
            "images_per_second": rounded(train),
            "eta_seconds": eta["total"],
            "eta": eta,
            "device": measured.device,
            "memory": {
                "peak_bytes": peak,
                "device_bytes": measured.room.total,
                "free_bytes": measured.room.free,
                "data_bytes": self._held(measured),
                "method": "measured" if self._saw_whole_batches(measured) else "estimated",
            },
            "largest_batch_size": batch and batch["images"],
            "largest_batch": batch,
            "measured": {
                "reason": None,
                "cached": self.cached,
                "at": measured.at,
                "batch_size": measured.batch_size,
                "warmup_steps": measured.warmup_steps,
                "steps": measured.steps,
                "seconds": measured.seconds,
                "core_share": measured.core_share,
                "streamed": measured.streamed,
                "evaluate_images_per_second": measured.evaluate_images_per_second,
                "load_images_per_second": measured.load_images_per_second,
                "save_seconds": measured.save_seconds,
            },
        }

    def _held(self, measured: Measured) -> int:
        """Bytes of images in the device's memory while the run trains."""
        if measured.streamed:
            return 0
        return data_bytes(self.recipe, self.sizes, device_type=measured.device["type"], free=measured.room.free)

    def _beside(self, measured: Measured) -> int:
        """Bytes that lie beside every step and validation but the first: the images, and on a CPU the best epoch's
        weights. A checkpoint is written tensor by tensor and takes less than a step.
        """
        return self._held(measured) + (measured.kept_bytes if measured.device["type"] == "cpu" else 0)

    def _sharing(self, measured: Measured) -> int:
        return sharing(self.recipe, measured.device["type"])

    def _at_once(self, measured: Measured) -> int:
        """Images of a batch's part on one device."""
        batch = self.sizes.batch
        return math.ceil(math.ceil(batch / self._sharing(measured)) / self.recipe.parts(batch))

    def _evaluated_at_once(self) -> int:
        """Images of the largest batch of a validation, or of the test at the end."""
        size = self.recipe.image_size
        return min(evaluation_batch(height=size, width=size), max(self.sizes.val, self.sizes.test))

    def _saw_whole_batches(self, measured: Measured) -> bool:
        steps = measured.peaks is not None and measured.peaks[1].images >= self._at_once(measured)
        return steps and measured.evaluation[1].images >= self._evaluated_at_once()

    def _peak(self, measured: Measured) -> int | None:
        """Of a step or a validation, whichever takes more: measured where a whole part of the batch was, else on the
        line through what was.
        """
        if measured.peaks is None:
            return None
        step = needed(*measured.peaks, self._at_once(measured)) + self._beside(measured)
        return max(step, self._validation(measured))

    def _validation(self, measured: Measured) -> int:
        return needed(*measured.evaluation, self._evaluated_at_once()) + self._beside(measured)

    def _largest(self, measured: Measured) -> dict[str, Any] | None:
        """The largest `batch_size` with the recipe's parts and devices, how that is known, and what bounds it."""
        parts, most = self.recipe.accumulate * self._sharing(measured), min(self.sizes.train, MOST)
        if measured.fits is not None and (measured.too_many is not None or measured.fits * parts >= most):
            images, method = measured.fits, "tried"
        elif measured.peaks is not None:
            fitting = largest(*measured.peaks, free=measured.room.free, extra=self._beside(measured))
            if fitting is None:
                return None
            images, method = fitting, "estimated"
        else:
            return None
        bound = "memory" if images * parts < most else "data" if most == self.sizes.train else "recipe"
        return {"images": min(images * parts, most), "method": method, "bound_by": bound}

    def _about(self, measured: Measured, told: dict[str, Any]) -> list[Problem]:
        """What the measurement says against the recipe, and what it does not cover."""
        recipe, batch, found = self.recipe, self.sizes.batch, []
        devices = self._sharing(measured)
        seen = measured.batch_size * devices
        largest_batch = told["largest_batch"]
        if largest_batch and largest_batch["images"] < batch:
            found.append(
                warning(
                    "batch_too_large_for_memory",
                    f"a batch of {batch:,} images needs more memory than is free; {largest_batch['images']:,} fit",
                    fewer_at_once(recipe, batch=batch, fitting=largest_batch["images"]),
                )
            )
        if measured.disturbed:
            message = f"the measured steps had {measured.core_share:.0%} of the cores' time: other work had the rest"
            found.append(
                warning(MACHINE_BUSY, message, "A training alone is faster. Ask again when the machine is idle.")
            )
        if self._validation(measured) > measured.room.free:
            message = f"to validate {self._evaluated_at_once()} images at once needs more memory than is free"
            alone = settings(recipe, test_time_flip=False) if recipe.test_time_flip else ""
            hint = advice(alone, otherwise="choose a smaller image_size or another network")
            found.append(warning("validation_too_large_for_memory", message, hint))
        if measured.finite is None:
            message = "whether the loss stays a number was not tried: the steps that were measured are another plan's"
            found.append(note("loss_not_tried", message, "Where it does not, the training fails with loss_not_finite."))
        elif not measured.finite and seen >= batch:
            message = f"the loss was no number after {measured.steps + measured.warmup_steps} steps"
            hint = "Lower lr, lengthen warmup_epochs, or use precision fp32."
            found.append(warning("loss_not_finite", message, hint))
        if self.max_seconds is not None and told["eta_seconds"] > self.max_seconds:
            message = f"the job may run {self.max_seconds:g} s and would take about {told['eta_seconds']:g} s"
            hint = (
                "Raise max_seconds, or train fewer epochs; the recipe's own max_seconds ends a training in good order."
            )
            found.append(warning("max_seconds_too_short", message, hint))
        for applies, message in (
            (seen < batch, f"steps of {measured.batch_size:,} images, for a whole one takes too long"),
            (measured.steps < FEW_STEPS, f"{measured.steps} step{'s' if measured.steps > 1 else ''}: one takes long"),
            (recipe.compile, "steps without compile, which would take longer than a plan may"),
            (devices > 1, f"one device, and counted {recipe.devices} times: they lose some of it to each other"),
            (recipe.devices > devices, "one process; several share the cores, and wait for each other"),
            (recipe.freeze_epochs > 0, "steps in which every layer learns; while some are frozen, steps are faster"),
        ):
            if applies:
                found.append(note("measured_otherwise", f"images/s was measured on {message}", "Take it as a guide."))
        return found
