"""A state dict becomes a model version: matched with a network, compared with its plain layout, written."""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from safetensors.torch import save as save_tensors
from torch import Tensor

from models import golden, runtime
from models.manifest import WEIGHTS, Lineage, Manifest, NetworkSpec, Preprocessing
from models.runtime import Runtime
from store.files import write_atomic
from store.version import code_version
from worker.adopter import plain
from worker.adopter.guessing import guess, labels, prepared, shapes_of
from worker.adopter.names import counts_batches, unwrapped
from worker.adopter.reading import read
from worker.adopter.task import Task, known
from worker.job_process import JobRefused, emit

_GOLDEN_IMAGES = 6
_TOLERANCE = 1e-4  # of a logit in float32
_PRECISION = 1e-5  # of the largest logit: of one above 10, sums in another order keep no more


def adopt_tensors(task: Task) -> dict[str, Any]:
    """Write the version to `task.draft`; what is to be said of it. Raises JobRefused."""
    task.begin("read")
    scratch = task.draft.with_name(f".state.{uuid4().hex}.tmp")
    state = read(task.upload, task.origin.format, scratch=scratch, stop=task.stop)
    task.begin("match")
    network, ours = translated(state, network=known(task.spec.network))
    preprocessing = prepared(network, task.spec.preprocessing)
    classes, doubt = labels(network, task.spec.classes)
    if doubt is not None:
        emit("warning", {"code": "classes_guessed", "message": doubt})
    content = save_tensors(ours)
    write_atomic(task.draft / WEIGHTS, content)
    manifest = Manifest(
        network=network,
        parameters=0,
        classes=classes,
        preprocessing=preprocessing,
        metrics={},
        lineage=_lineage(task),
        weights_sha256=hashlib.sha256(content).hexdigest(),
        golden_sha256="",
    )
    manifest.write(task.draft)
    loaded = runtime.load(task.draft, "cpu")
    task.begin("compare")
    images = pictures(preprocessing)
    logits = loaded.logits(images)
    if not np.isfinite(logits).all():
        raise JobRefused("not_finite", "the model's logits are not finite", "Take a checkpoint that was not lost.")
    difference = compare(state, loaded, images, logits)
    task.begin("write")
    parameters = sum(parameter.numel() for parameter in loaded.network.parameters())
    digest = golden.write(task.draft, images, logits)
    manifest.model_copy(update={"parameters": parameters, "golden_sha256": digest}).write(task.draft)
    golden.check(runtime.load(task.draft, "cpu"), task.draft)
    return {"network": network.name, "parameters": parameters, "plain_layout_difference": difference}


def translated(state: Mapping[str, Tensor], *, network: str | None) -> tuple[NetworkSpec, dict[str, Tensor]]:
    """The network that a state dict is of, and the tensors under that network's own names, in float32.

    Raises JobRefused where no network fits, or a weight is not a number.
    """
    spec, fitting = guess({name: tuple(tensor.shape) for name, tensor in state.items()}, network=network)
    ours: dict[str, Tensor] = {}
    for name, shape in shapes_of(spec).items():
        if counts_batches(name):
            ours[name] = torch.zeros(shape, dtype=torch.int64)
            continue
        theirs = fitting.names[name]
        tensor = state[theirs]
        if not tensor.is_floating_point():
            raise JobRefused("state_dict_mismatch", f"{theirs!r} holds {tensor.dtype}", "Weights are float tensors.")
        ours[name] = tensor.to(torch.float32).contiguous()
        if not bool(torch.isfinite(ours[name]).all()):
            raise JobRefused("not_finite", f"{theirs!r} holds NaN or infinity", "Take a checkpoint that was not lost.")
    return spec, ours


def compare(
    state: Mapping[str, Tensor], loaded: Runtime, images: npt.NDArray[np.uint8], logits: npt.NDArray[np.float32]
) -> float | None:
    """The largest deviation of a logit from the plain layout's; None for a layout of its own.

    Raises JobRefused above 1e-4, or above 1e-5 of the largest logit where that is beyond 10.
    """
    names = unwrapped(state)
    bare = {names[name]: tensor.float() for name, tensor in state.items()}
    if not plain.is_plain(bare):
        return None
    batch = loaded.normalise(torch.from_numpy(images))
    deviation = float(np.abs(plain.logits(bare, batch).numpy() - logits).max())
    if not deviation <= max(_TOLERANCE, _PRECISION * float(np.abs(logits).max())):
        message = f"{loaded.manifest.network.name} does not give the file's logits: they differ by {deviation:.3g}"
        raise JobRefused("logits_differ", message, "Name another network.")
    return deviation


def pictures(preprocessing: Preprocessing) -> npt.NDArray[np.uint8]:
    """A few pictures uint8 (G, H, W, C) that anybody can make again: blobs of colour with a little noise."""
    draw = np.random.default_rng(0)
    width, height, channels = preprocessing.width, preprocessing.height, preprocessing.channels
    made = []
    for number in range(_GOLDEN_IMAGES):
        coarse = draw.integers(0, 256, size=(3 + number, 3 + number, 3), dtype=np.uint8)
        smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        noisy = np.asarray(smooth).astype(np.int16) + draw.integers(-12, 13, size=(height, width, 3))
        made.append(noisy.clip(0, 255).astype(np.uint8)[:, :, :channels])
    return np.stack(made)


def _lineage(task: Task) -> Lineage:
    return Lineage(
        job=task.job,
        dataset="",
        dataset_name="",
        dataset_digest="",
        recipe="",
        seed=0,
        code_version=code_version(),
        created_at=datetime.now(UTC),
        origin=task.origin,
    )
