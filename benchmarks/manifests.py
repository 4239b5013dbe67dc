"""Manifests of models that nobody trained: to measure and to test what holds models and serves them."""

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from models.manifest import GOLDEN, WEIGHTS, Lineage, Manifest, NetworkSpec, Preprocessing

RGB_32 = Preprocessing(channels=3, height=32, width=32, resize=32, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


def lineage(job: str, **known: object) -> Lineage:
    """Of a model that `job` made of nothing; what is known of it stands in place of that."""
    nothing = {"dataset": "ds_1", "dataset_name": "toy", "dataset_digest": "sha256:0", "recipe": "none", "seed": 0}
    return Lineage.model_validate({**nothing, "code_version": "0", "created_at": datetime.now(UTC), "job": job} | known)


def manifest(
    made: Lineage,
    *,
    network: str = "cifar/resnet8",
    parameters: int = 75_000,
    classes: tuple[str, ...] = ("cat", "dog"),
    preprocessing: Preprocessing = RGB_32,
    metrics: dict[str, Any] | None = None,
    weights: bytes,
    golden_sha256: str = "",
) -> Manifest:
    """`golden_sha256` is empty until the golden outputs are written."""
    return Manifest(
        network=NetworkSpec(name=network, num_classes=len(classes), in_channels=preprocessing.channels),
        parameters=parameters,
        classes=classes,
        preprocessing=preprocessing,
        metrics=metrics or {},
        lineage=made,
        weights_sha256=hashlib.sha256(weights).hexdigest(),
        golden_sha256=golden_sha256,
    )


def write_hollow(folder: Path, made: Lineage, *, weights: bytes = b"weights", **fields: Any) -> Path:  # noqa: ANN401
    """A version as far as a catalog looks at it: the right digests of files that hold no network."""
    folder.mkdir(parents=True)
    (folder / WEIGHTS).write_bytes(weights)
    (folder / GOLDEN).write_bytes(b"golden")
    golden_sha256 = hashlib.sha256(b"golden").hexdigest()
    manifest(made, weights=weights, golden_sha256=golden_sha256, **fields).write(folder)
    return folder
