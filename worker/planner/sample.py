"""Some of a dataset's training images, read as the trainer reads them, in bounded time."""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np

from models.manifest import Preprocessing
from models.recipes import Recipe
from store.control_group import usable_cores
from store.datasets import Dataset
from worker.trainer.data import Reading, TrainingData, mean_and_std, opened, read
from worker.trainer.pixels import Images, Streamed

SECONDS = 2.0  # of reading
_ENOUGH = 1024  # images: more say no more about speed
_PIECE = 64


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Images from all over train, and how many of them came a second: from disk, decoded, resized.

    Where the run would stream its images, all of train is here, and streamed.
    """

    data: TrainingData
    images_per_second: float
    streamed: bool

    @property
    def bytes_held(self) -> int:
        pixels = self.data.train.pixels
        return 0 if isinstance(pixels, Streamed) else pixels.nbytes

    def of_at_least(self, images: int) -> Self:
        """With some images more than once where there are fewer."""
        train = self.data.train
        if len(train) >= images or isinstance(train.pixels, Streamed):
            return self
        again = np.arange(images) % len(train)
        more = Images(pixels=train.pixels[again], labels=train.labels[again])
        return replace(self, data=replace(self.data, train=more))


def take(folder: Path, dataset: Dataset, recipe: Recipe) -> Sample:
    """As many as are read within `SECONDS`, at most about a thousand. Raises JobRefused."""
    preprocessing = Preprocessing(
        channels=recipe.channels,
        height=recipe.canvas,
        width=recipe.canvas,
        resize=recipe.resize or recipe.image_size,
        mean=recipe.mean or (0.0,) * recipe.channels,
        std=recipe.std or (1.0,) * recipe.channels,
    )
    split = opened(folder, dataset, "train", pixels=False)
    reading = Reading(between=lambda: None, loader=recipe.loader, workers=recipe.workers, readers=recipe.devices)
    streamed = reading.streams("train", (len(split), recipe.canvas, recipe.canvas, recipe.channels))
    chosen = np.arange(0, len(split), max(len(split) // _ENOUGH, 1))[:_ENOUGH]
    workers = reading.threads * reading.readers if streamed else usable_cores()  # what is kept is read by all cores
    source = Streamed(split, chosen, preprocessing, workers=workers)
    pieces = []
    began = time.monotonic()
    for start in range(0, len(chosen), _PIECE):
        pieces.append(source[start : start + _PIECE])
        if time.monotonic() - began > SECONDS:
            break
    seconds = time.monotonic() - began
    pixels = np.concatenate(pieces)
    if recipe.mean is None or recipe.std is None:
        mean, std = mean_and_std(pixels, between=lambda: None)
        preprocessing = preprocessing.model_copy(update={"mean": recipe.mean or mean, "std": recipe.std or std})
    some = Images(pixels=pixels, labels=split.labels[chosen[: len(pixels)]])
    return Sample(
        data=TrainingData(
            train=read(folder, dataset, "train", preprocessing, reading) if streamed else some,
            val=Images(pixels=pixels[:2], labels=some.labels[:2]),
            preprocessing=preprocessing,
        ),
        images_per_second=len(pixels) / seconds,
        streamed=streamed,
    )
