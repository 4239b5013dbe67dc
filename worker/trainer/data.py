"""Data: the images of a split in memory where they fit, else made as they are needed; and the validation split."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from models.manifest import Preprocessing
from models.recipes import Recipe
from store.control_group import usable_cores
from store.datasets import Dataset, SplitName, SplitSummary
from store.splits import Split, open_split
from worker.job_process import JobRefused
from worker.memory import available_bytes
from worker.trainer.hold_out import contents, stratified
from worker.trainer.pixels import Images, Rows, Streamed, fill
from worker.trainer.split_sizes import NOTHING_HELD_OUT, carves_val, has_val, refusals

#: Mean and standard deviation of each channel, of values scaled to 0–1.
Normalisation = tuple[tuple[float, ...], tuple[float, ...]]

_MEND = "Import the dataset again, or put its files back from a copy."
_CHUNK = 256
_SMALL = 2**28  # bytes that every machine has, whatever it says


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How splits are read: the recipe's `loader`, threads that prepare streamed images, and processes that each read.

    `between` is called every few dozen images; what it raises ends the reading.
    """

    between: Callable[[], None]
    loader: str = "auto"
    workers: int | None = None
    readers: int = 1

    @property
    def threads(self) -> int:
        """Of each process, to prepare streamed images; 0: whoever needs them does it."""
        return max(1, usable_cores() // self.readers) if self.workers is None else self.workers

    def streams(self, name: str, shape: tuple[int, ...]) -> bool:
        """Whether images of this shape (N, H, W, C) are streamed. Raises JobRefused where they must not be, but must.

        `auto` keeps them in memory where half of what is free holds them: training needs some too.
        """
        need, have = int(np.prod(shape, dtype=np.int64)) * self.readers, available_bytes()
        if self.loader == "memory" and need > max(have, _SMALL):
            raise JobRefused(
                "dataset_too_large",
                f"split {name} needs {need / 2**30:.1f} GiB of memory at this image size, {have / 2**30:.1f} are free",
                "Use loader auto or stream, or choose a smaller image_size.",
            )
        return self.loader == "stream" or (self.loader == "auto" and need > max(have // 2, _SMALL))


def read(
    folder: Path,
    dataset: Dataset,
    name: SplitName,
    preprocessing: Preprocessing,
    reading: Reading,
    *,
    rows: Rows | None = None,
) -> Images:
    """A split, or some `rows` of it, every image prepared as `models/images` does it for serving.

    Raises JobRefused where an image cannot be, or has changed since its import; of a streamed split, that is when its
    turn comes.
    """
    return _read(opened(folder, dataset, name, between=reading.between), preprocessing, reading, rows=rows)


def _read(split: Split, preprocessing: Preprocessing, reading: Reading, *, rows: Rows | None = None) -> Images:
    chosen = np.arange(len(split)) if rows is None else rows
    labels = split.labels[chosen]
    shape = (len(chosen), preprocessing.height, preprocessing.width, preprocessing.channels)
    if reading.streams(split.name, shape):
        return Images(pixels=Streamed(split, chosen, preprocessing, workers=reading.threads), labels=labels)
    pixels = np.empty(shape, dtype=np.uint8)
    with ThreadPoolExecutor(usable_cores(), "prepare") as pool:
        fill(pixels, split, chosen, preprocessing, pool=pool, between=reading.between)
    return Images(pixels=pixels, labels=labels)


def _no_images(preprocessing: Preprocessing) -> Images:
    shape = (0, preprocessing.height, preprocessing.width, preprocessing.channels)
    return Images(pixels=np.empty(shape, dtype=np.uint8), labels=np.empty(0, dtype=np.int64))


def described(folder: Path, dataset_id: str) -> Dataset:
    """The dataset in `folder`. Raises JobRefused where none is imported there, or its descriptor is none."""
    try:
        return Dataset.read(folder)
    except FileNotFoundError as missing:
        hint = "Upload it, or wait until its import has ended."
        raise JobRefused("no_dataset", f"dataset {dataset_id} is not imported here", hint) from missing
    except ValidationError as spoilt:
        message = f"dataset {dataset_id} is damaged: its dataset.json is no descriptor"
        raise JobRefused("dataset_damaged", message, _MEND) from spoilt


def opened(
    folder: Path,
    dataset: Dataset,
    name: SplitName,
    *,
    between: Callable[[], None] = lambda: None,
    pixels: bool = True,
) -> Split:
    """A split whose files are what the dataset's descriptor says of them. Raises JobRefused where they are not, and
    when an image is read from its file that is not what was imported.

    Images that are stored as `pixels` are all read for that, unless they are not to be; `between` is called meanwhile.
    """

    def refusal(what: str) -> JobRefused:
        return JobRefused("dataset_damaged", f"split {name} is damaged: {what}", _MEND)

    try:
        split = open_split(folder, dataset, name, refuse=refusal)
        bad = split.fault()
    except (FileNotFoundError, ValueError, EOFError) as error:  # ValueError: cut or no .npy; EOFError: an empty one
        raise refusal(str(error)) from error
    if bad is None:
        per_class = tuple(np.bincount(split.labels, minlength=len(dataset.classes)).tolist())
        if dataset.splits[name] != SplitSummary(images=len(split), per_class=per_class):
            bad = "its labels are not those that were imported"
    if bad is not None:
        raise refusal(bad)
    if pixels:
        split.check_pixels(between)
    return split


def mean_and_std(pixels: npt.NDArray[np.uint8] | Streamed, *, between: Callable[[], None]) -> Normalisation:
    """Mean and standard deviation of each channel of (N, H, W, C), of values scaled to 0–1; exact, by histogram."""
    histograms = np.zeros((pixels.shape[3], 256), dtype=np.int64)
    for start in range(0, len(pixels), _CHUNK):  # bincount makes int64 copies, eight times the size
        some = pixels[start : start + _CHUNK]
        for channel in range(len(histograms)):
            histograms[channel] += np.bincount(some[..., channel].ravel(), minlength=256)
        between()
    values = np.arange(256) / 255
    means, stds = [], []
    for counts in histograms:
        share = counts / counts.sum()
        mean = float(share @ values)
        means.append(round(mean, 4))
        stds.append(round(max(float(np.sqrt(share @ (values - mean) ** 2)), 1e-3), 4))  # a blank channel has none
    return tuple(means), tuple(stds)


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """What a run trains on and selects by; `val` is empty where nothing is held out for it.

    The test split is not here: it is read once, at the end.
    """

    train: Images
    val: Images
    preprocessing: Preprocessing


def read_training_data(
    folder: Path, dataset: Dataset, recipe: Recipe, reading: Reading, *, known: Normalisation | None = None
) -> TrainingData:
    """Train and val images; val is carved from train where the dataset has none, or empty. Raises JobRefused.

    `known` are the mean and std of this run, where it has measured them before: of streamed images that is a pass over
    all of train.
    """
    for refusal in refusals(dataset, recipe):  # all there are: a split is `opened` only if it has what these counted
        raise JobRefused(*refusal)
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
    canvas = shape.model_copy(update={"height": recipe.canvas, "width": recipe.canvas})
    if carves_val(dataset, recipe):
        split = opened(folder, dataset, "train", between=reading.between)
        hashes = contents(split, between=reading.between)
        kept, held = stratified(split.labels, hashes, fraction=recipe.val_fraction)
        if len(held) == 0:
            raise JobRefused(*NOTHING_HELD_OUT)
        train = _read(split, canvas, reading, rows=kept)
        val = _read(split, shape, reading, rows=held)
    else:
        train = read(folder, dataset, "train", canvas, reading)
        val = read(folder, dataset, "val", shape, reading) if has_val(dataset) else _no_images(shape)
    mean, std = recipe.mean, recipe.std
    if mean is None or std is None:
        measured_mean, measured_std = known or mean_and_std(train.pixels, between=reading.between)
        mean, std = mean or measured_mean, std or measured_std
    preprocessing = shape.model_copy(update={"mean": mean, "std": std})
    return TrainingData(train=train, val=val, preprocessing=preprocessing)
