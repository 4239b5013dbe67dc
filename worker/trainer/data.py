"""Data: every image of a split as prepared uint8 pixels in memory, and the validation split."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from models.images import Decoded, ImageRejected, decode, prepare
from models.manifest import Preprocessing
from models.recipes import Recipe
from store.datasets import Dataset, SplitName
from store.splits import Split, open_split
from worker.job_process import JobRefused

_MAX_PIXELS = 200_000_000  # what the importer let in is decoded; this only bounds a broken header
_CHUNK = 256


@dataclass(frozen=True, kw_only=True)
class Images:
    """`pixels` uint8 (N, H, W, C), `labels` int64 (N,)."""

    pixels: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: npt.NDArray[np.int64]) -> "Images":
        return Images(pixels=self.pixels[index], labels=self.labels[index])


def read(
    folder: Path, dataset: Dataset, name: SplitName, preprocessing: Preprocessing, between: Callable[[], None]
) -> Images:
    """A split, every image prepared as `models/images` does it for serving. Raises JobRefused where one cannot be.

    `between` is called every few hundred images; what it raises ends the reading.
    """
    split = open_split(folder, dataset, name)
    shape = (len(split), preprocessing.height, preprocessing.width, preprocessing.channels)
    _refuse_what_memory_cannot_hold(name, shape)
    if split.pixels is not None and split.pixels.shape == shape:
        return Images(pixels=np.array(split.pixels), labels=split.labels)
    pixels = np.empty(shape, dtype=np.uint8)

    def fill(start: int) -> None:
        stop = min(start + _CHUNK, len(split))
        pixels[start:stop] = prepared(split, range(start, stop), preprocessing)

    pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))  # Pillow decodes and resizes without the GIL
    try:
        for _ in pool.map(fill, range(0, len(split), _CHUNK)):
            between()
    finally:
        pool.shutdown(cancel_futures=True)
    return Images(pixels=pixels, labels=split.labels)


def prepared(split: Split, chosen: range, preprocessing: Preprocessing) -> npt.NDArray[np.uint8]:
    """Some images of a split as `models/images` prepares them for serving, uint8 (len(chosen), H, W, C); any thread.

    Raises JobRefused where one cannot be decoded.
    """
    pixels = np.empty((len(chosen), preprocessing.height, preprocessing.width, preprocessing.channels), dtype=np.uint8)
    for place, index in enumerate(chosen):
        pixels[place], _ = prepare(_decoded(split, index), preprocessing)
    return pixels


def _decoded(split: Split, index: int) -> Decoded:
    if split.pixels is not None:
        array = split.pixels[index]
        return Decoded(Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array))
    try:
        return decode(split.encoded(index), max_pixels=_MAX_PIXELS)
    except ImageRejected as error:
        raise JobRefused(
            "dataset_damaged",
            f"image {index} of split {split.name} cannot be decoded: {error.message}",
            "Import the dataset again.",
        ) from error


def _refuse_what_memory_cannot_hold(name: str, shape: tuple[int, ...]) -> None:
    need = int(np.prod(shape, dtype=np.int64))
    have = _available_memory()
    if need > max(have, 2**28):
        raise JobRefused(
            "dataset_too_large",
            f"split {name} needs {need / 2**30:.1f} GiB of memory at this image size, {have / 2**30:.1f} GiB are free",
            "Choose a smaller image_size.",
        )


def _available_memory() -> int:
    """Bytes that can be had without swapping, the page cache's included."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def mean_and_std(pixels: npt.NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel of (N, H, W, C), of values scaled to 0–1; exact, by histogram."""
    values = np.arange(256) / 255
    means, stds = [], []
    for channel in range(pixels.shape[3]):
        counts = np.zeros(256, dtype=np.int64)
        for start in range(0, len(pixels), _CHUNK):  # bincount makes int64 copies, eight times the size
            counts += np.bincount(pixels[start : start + _CHUNK, ..., channel].ravel(), minlength=256)
        share = counts / counts.sum()
        mean = float(share @ values)
        means.append(round(mean, 4))
        stds.append(round(max(float(np.sqrt(share @ (values - mean) ** 2)), 1e-3), 4))  # a blank channel has none
    return tuple(means), tuple(stds)


def stratified(
    labels: npt.NDArray[np.int64], *, fraction: float, seed: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Indices (kept, held out), both in order: `fraction` of each class, at least one of a class with two or more."""
    generator = np.random.default_rng([seed, 0x5A1])
    held = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = min(max(round(fraction * len(members)), 1), len(members) - 1)
        held[generator.permutation(members)[:count]] = True
    return np.flatnonzero(~held), np.flatnonzero(held)


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """What a run trains on and selects by. The test split is not here: it is read once, at the end."""

    train: Images
    val: Images
    preprocessing: Preprocessing


def read_training_data(folder: Path, dataset: Dataset, recipe: Recipe, between: Callable[[], None]) -> TrainingData:
    """Train and val images; val is carved from train where the dataset has none. Raises JobRefused."""
    _refuse_what_cannot_be_learned(dataset)
    resize = recipe.resize or recipe.image_size
    blank = (0.0,) * recipe.channels, (1.0,) * recipe.channels  # pixels do not depend on the normalisation
    shape = Preprocessing(
        channels=recipe.channels,
        height=recipe.image_size,
        width=recipe.image_size,
        resize=resize,
        mean=blank[0],
        std=blank[1],
    )
    train = read(folder, dataset, "train", shape, between)
    if "val" in dataset.splits and dataset.splits["val"].images > 0:
        val = read(folder, dataset, "val", shape, between)
    else:
        kept, held = stratified(train.labels, fraction=recipe.val_fraction, seed=recipe.seed)
        if len(held) == 0:
            raise JobRefused("dataset_too_small", "no class has two images: none can be held out", "Add images.")
        train, val = train.take(kept), train.take(held)
    mean, std = recipe.mean, recipe.std
    if mean is None or std is None:
        measured_mean, measured_std = mean_and_std(train.pixels)
        mean, std = mean or measured_mean, std or measured_std
    preprocessing = shape.model_copy(update={"mean": mean, "std": std})
    return TrainingData(train=train, val=val, preprocessing=preprocessing)


def _refuse_what_cannot_be_learned(dataset: Dataset) -> None:
    if len(dataset.classes) < 2:
        raise JobRefused("too_few_classes", "the dataset has fewer than two classes", "Upload one with two or more.")
    if "train" not in dataset.splits or dataset.splits["train"].images < 2:
        raise JobRefused("no_training_data", "the dataset has no train split to learn from", "Add a train split.")
