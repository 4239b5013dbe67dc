"""Images that go with a model so that it can be made faster without guessing: calibration.safetensors.

`calibration` are training images, from which int8 learns how large activations get. `heldout` are validation images
with their labels and float32 logits: on them a faster way of computing must be as accurate. Images are kept as they
are, or as JPEG where that would take too much room: both ways of computing then see the same decoded pixels.
"""

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from safetensors import SafetensorError
from safetensors.numpy import load, save

from models.manifest import CALIBRATION, Manifest
from store.files import write_atomic

log = logging.getLogger(__name__)

CALIBRATION_IMAGES = 256
HELDOUT_IMAGES = 1000
_RAW_BYTES = 2_000_000  # a set that takes more is kept as JPEG
_JPEG_BYTES = 12_000_000  # and one that takes more than this even so, is cut
_SEED = 0  # of the order in which images are written

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Probes:
    """Images uint8 (N, H, W, C), labels int64 (M,), logits float32 (M, K)."""

    calibration: Pixels
    heldout: Pixels
    labels: npt.NDArray[np.int64]
    logits: npt.NDArray[np.float32]


def write(
    folder: Path,
    *,
    calibration: Pixels,
    heldout: Pixels,
    labels: npt.NDArray[np.int64],
    logits: Callable[[Pixels], npt.NDArray[np.float32]],
) -> str:
    """Write as many of these images as there is room for; returns the file's sha256 in hex.

    `labels` are those of `heldout`; `logits` computes (M, K) of the images as they will be read again. They are drawn
    from all over what is given: a dataset is in the order of its classes.
    """
    parts: dict[str, npt.NDArray[Any]] = {}
    rows = _drawn(len(heldout), HELDOUT_IMAGES)
    packed = _pack(heldout, rows)
    seen = _unpack(packed)
    parts |= {f"heldout.{part}": array for part, array in packed.items()}
    learned = _pack(calibration, _drawn(len(calibration), CALIBRATION_IMAGES))
    parts |= {f"calibration.{part}": array for part, array in learned.items()}
    parts |= {"labels": labels[rows[: len(seen)]].astype(np.int64), "logits": np.ascontiguousarray(logits(seen))}
    data = save(parts)
    write_atomic(folder / CALIBRATION, data)
    return hashlib.sha256(data).hexdigest()


def read(folder: Path, manifest: Manifest) -> Probes | None:
    """None where the model came without, or with a file that is not its own: it is served without int8 then."""
    if manifest.calibration_sha256 is None:
        return None
    try:
        data = (folder / CALIBRATION).read_bytes()
        if hashlib.sha256(data).hexdigest() != manifest.calibration_sha256:
            raise ValueError("it is not the file that model.json names")
        parts = load(data)
        sets = {
            name: _unpack({part.partition(".")[2]: parts[part] for part in parts if part.startswith(name + ".")})
            for name in ("calibration", "heldout")
        }
        want = manifest.preprocessing  # trainings with random crops have written images as large as they cropped from
        calibration = centre(sets["calibration"], height=want.height, width=want.width)
        return Probes(calibration=calibration, heldout=sets["heldout"], labels=parts["labels"], logits=parts["logits"])
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        log.warning(
            "the calibration images cannot be used", extra={"file": str(folder / CALIBRATION), "reason": str(error)}
        )
        return None


def centre(images: Pixels, *, height: int, width: int) -> Pixels:
    """The middle (N, height, width, C) of images that are as large or larger."""
    top, left = (images.shape[1] - height) // 2, (images.shape[2] - width) // 2
    return images[:, top : top + height, left : left + width]


def _drawn(count: int, most: int) -> npt.NDArray[np.int64]:
    """So many rows of `count`, the same each time, in an order that has nothing to do with theirs."""
    return np.random.default_rng(_SEED).permutation(count)[:most]


def _pack(images: Pixels, rows: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[Any]]:
    """The images `rows`, in this order, and of those that are kept as JPEG the first ones that there is room for."""
    if len(rows) * images[0].nbytes <= _RAW_BYTES:
        return {"images": np.ascontiguousarray(images[rows])}
    files, room = [], _JPEG_BYTES
    for row in rows:
        image, file = images[row], BytesIO()
        Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(file, "JPEG", quality=92, subsampling=0)
        room -= file.tell()
        if room < 0:
            break
        files.append(np.frombuffer(file.getvalue(), dtype=np.uint8))
    return {"jpeg": np.concatenate(files), "lengths": np.array([len(file) for file in files], dtype=np.int64)}


def _unpack(parts: dict[str, npt.NDArray[Any]]) -> Pixels:
    if "images" in parts:
        return parts["images"].astype(np.uint8, copy=False)
    ends = np.cumsum(parts["lengths"].astype(np.int64))
    files = np.split(parts["jpeg"], ends[:-1])
    images = np.stack([np.asarray(Image.open(BytesIO(file.tobytes()), formats=("JPEG",))) for file in files])
    return images[:, :, :, None] if images.ndim == 3 else images
