"""The end of a run: calibrate, evaluate once on the test split what will be served, write the model version."""

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from safetensors.torch import save as save_tensors
from torch import Tensor

from models import golden, runtime
from models.manifest import WEIGHTS, Calibration, Lineage, Manifest, NetworkSpec
from store.files import publish_dir, remove_tree, write_atomic
from worker.trainer import evaluate, metrics
from worker.trainer.data import Images, TrainingData

_GOLDEN_IMAGES = 12


def code_version() -> str:
    try:
        return version("resnetd")
    except PackageNotFoundError:
        return "unknown"


def save_model(
    *,
    target: Path,
    weights: dict[str, Tensor],
    network: NetworkSpec,
    classes: tuple[str, ...],
    lineage: Callable[[datetime], Lineage],
    data: TrainingData,
    test: Images | None,
    training: dict[str, Any],
    device: str,
    between: Callable[[], None],
) -> dict[str, Any]:
    """Write the model version to `target`, whole or not at all, and return its metrics.

    They are those of the saved weights as the engine will load them, on `test`, or on val where there is no test split.
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
            metrics={},
            lineage=lineage(datetime.now(UTC)),
            weights_sha256=hashlib.sha256(content).hexdigest(),
            golden_sha256="",
        )
        manifest.write(draft)
        loaded = runtime.load(draft, device)

        val_logits = evaluate.logits(loaded.logits, data.val, between=between)
        temperature = metrics.fit_temperature(val_logits, data.val.labels)
        split = "val" if test is None else "test"
        judged = data.val if test is None else test
        logits = val_logits if test is None else evaluate.logits(loaded.logits, test, between=between)
        report = {"split": split, **metrics.report(logits, judged.labels, classes, temperature), **training}

        chosen = data.val.pixels[np.linspace(0, len(data.val) - 1, min(_GOLDEN_IMAGES, len(data.val)), dtype=np.int64)]
        digest = golden.write(draft, chosen, loaded.logits(chosen))
        manifest = manifest.model_copy(
            update={
                "parameters": sum(parameter.numel() for parameter in loaded.network.parameters()),
                "metrics": report,
                "calibration": Calibration(temperature=temperature),
                "golden_sha256": digest,
            }
        )
        manifest.write(draft)
        golden.check(runtime.load(draft, device), draft)
        remove_tree(target)
        publish_dir(draft, target)
    except BaseException:
        remove_tree(draft)
        raise
    return report
