"""The end of a run: calibrate, evaluate once on the test split what will be served, write the model version."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt
from safetensors.torch import save as save_tensors
from torch import Tensor

from models import golden, probes, runtime
from models.manifest import WEIGHTS, Calibration, Lineage, Manifest, NetworkSpec, Preprocessing
from store.files import publish_dir, remove_tree, write_atomic
from worker.evaluator.documents import Evaluation
from worker.evaluator.report import summary
from worker.job_process import JobRefused
from worker.trainer import evaluate, metrics
from worker.trainer.data import TrainingData
from worker.trainer.pixels import Images

_GOLDEN_IMAGES = 12


@dataclass(frozen=True, kw_only=True)
class Saved:
    """What a training says of its model, and the evaluation that it rests on."""

    report: dict[str, Any]
    weights_sha256: str
    evaluation: Evaluation


def save_model(
    *,
    target: Path,
    weights: dict[str, Tensor],
    network: NetworkSpec,
    classes: tuple[str, ...],
    lineage: Callable[[datetime], Lineage],
    data: TrainingData,
    test_time_flip: bool,
    test: Images | None,
    training: dict[str, Any],
    device: str,
    between: Callable[[], None],
) -> Saved:
    """Write the model version to `target`, whole or not at all, and return its metrics.

    They are those of the saved weights as the engine will load them, on `test`, or on val where there is no test split.
    With nothing to validate on there is a test split, and the model has neither a temperature nor calibration images.
    Raises JobRefused where its outputs are no finite numbers.
    """
    draft = target.with_name(f".model.{uuid4().hex}.tmp")
    draft.mkdir(parents=True)
    try:
        content = save_tensors({name: tensor.contiguous() for name, tensor in weights.items()})
        write_atomic(draft / WEIGHTS, content)
        manifest = Manifest(
            network=network,
            parameters=0,
            classes=classes,
            preprocessing=data.preprocessing,
            test_time_flip=test_time_flip,
            metrics={},
            lineage=lineage(datetime.now(UTC)),
            weights_sha256=hashlib.sha256(content).hexdigest(),
            golden_sha256="",
        )
        manifest.write(draft)
        loaded = runtime.load(draft, device)

        val_logits = evaluate.logits(loaded.logits, data.val, between=between)
        temperature = metrics.fit_temperature(val_logits, data.val.labels) if len(data.val) else None
        split = "val" if test is None else "test"
        judged = data.val if test is None else test
        logits = val_logits if test is None else evaluate.logits(loaded.logits, test, between=between)
        if not np.isfinite(logits).all():
            raise JobRefused(
                "loss_not_finite",
                f"the trained network's outputs for {split} are not all finite numbers",
                "Lower lr, lengthen warmup_epochs, or use precision fp32.",
            )
        figures = summary(logits, judged.labels, classes, temperature or 1.0)
        report = {"split": split, **figures, **training}

        chosen = _centres(data.val if len(data.val) else data.train, _GOLDEN_IMAGES, data.preprocessing)
        golden_sha256 = golden.write(draft, chosen, loaded.logits(chosen))
        calibration_sha256 = _write_probes(draft, data, loaded, between) if len(data.val) else None
        manifest = manifest.model_copy(
            update={
                "parameters": sum(parameter.numel() for parameter in loaded.network.parameters()),
                "metrics": report,
                "calibration": None if temperature is None else Calibration(temperature=temperature),
                "golden_sha256": golden_sha256,
                "calibration_sha256": calibration_sha256,
            }
        )
        manifest.write(draft)
        golden.check(runtime.load(draft, device), draft)
        remove_tree(target)
        publish_dir(draft, target)
    except BaseException:
        remove_tree(draft)
        raise
    return Saved(
        report=report,
        weights_sha256=manifest.weights_sha256,
        evaluation=Evaluation(
            figures=figures,
            logits=logits,
            labels=judged.labels,
            classes=classes,
            temperature=temperature or 1.0,
            pixels=lambda index: judged.pixels[index],
        ),
    )


def _write_probes(draft: Path, data: TrainingData, loaded: runtime.Runtime, between: Callable[[], None]) -> str:
    heldout = _spread(data.val, probes.HELDOUT_IMAGES)
    return probes.write(
        draft,
        calibration=_centres(data.train, probes.CALIBRATION_IMAGES, data.preprocessing),
        heldout=data.val.pixels[heldout],
        labels=data.val.labels[heldout],
        logits=lambda images: evaluate.logits(
            loaded.logits, Images(pixels=images, labels=data.val.labels[: len(images)]), between=between
        ),
    )


def _centres(images: Images, most: int, want: Preprocessing) -> npt.NDArray[np.uint8]:
    """So many images as the network sees them: random crops of training images are taken from more than that."""
    return probes.centre(images.pixels[_spread(images, most)], height=want.height, width=want.width)


def _spread(images: Images, most: int) -> npt.NDArray[np.int64]:
    """The rows of so many images, evenly over all of them."""
    return np.linspace(0, len(images) - 1, min(most, len(images)), dtype=np.int64)
