"""Golden images: a few inputs with the outputs they gave after training. Who serves must reproduce them."""

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from models.manifest import GOLDEN, Manifest, ModelDamagedError
from models.runtime import Runtime
from store.files import write_atomic

_TOLERANCE = 1e-3  # of a float32 logit: other batch sizes and CPUs add in another order
_PRECISION = 1e-5  # of the largest logit: of one in the thousands, float32 itself keeps no more


def tolerance(expected: npt.NDArray[np.floating]) -> float:
    """By how much a logit may differ from what is expected, (G, K): 0.001, and more where logits are beyond 100."""
    return max(_TOLERANCE, _PRECISION * float(np.abs(expected).max()))


def write(folder: Path, images: npt.NDArray[np.uint8], logits: npt.NDArray[np.float32]) -> str:
    """Write images uint8 (G, H, W, C) with their logits float32 (G, K); returns the file's sha256 in hex."""
    data = save({"images": np.ascontiguousarray(images), "logits": np.ascontiguousarray(logits)})
    write_atomic(folder / GOLDEN, data)
    return hashlib.sha256(data).hexdigest()


def read(folder: Path, manifest: Manifest) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """The images uint8 (G, H, W, C) and their logits float32 (G, K).

    Raises ModelDamagedError where there is no such file, or it is not the model's.
    """
    try:
        data = (folder / GOLDEN).read_bytes()
    except FileNotFoundError as error:
        raise ModelDamagedError(f"{folder / GOLDEN} is gone") from error
    if hashlib.sha256(data).hexdigest() != manifest.golden_sha256:
        raise ModelDamagedError(f"{folder / GOLDEN} is not the file that model.json names")
    try:
        golden = load(data)
        return golden["images"], golden["logits"]
    except (SafetensorError, KeyError) as error:
        raise ModelDamagedError(f"{folder / GOLDEN} cannot be read: {error}") from error


def check(runtime: Runtime, folder: Path) -> float:
    """The largest deviation of a logit. Raises ModelDamagedError above `tolerance`, or for another model's file."""
    images, expected = read(folder, runtime.manifest)
    deviation = float(np.abs(runtime.logits(images) - expected).max())
    allowed = tolerance(expected)
    if not deviation <= allowed:  # also refuses NaN
        raise ModelDamagedError(
            f"the golden outputs are not reproduced: a logit deviates by {deviation:.3g}, allowed are {allowed:.3g}"
        )
    return deviation
