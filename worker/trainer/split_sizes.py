"""How many images each part of a run has, before any is read, and whether they are enough."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.recipes import Recipe
from models.recipes.sense import trains_alone
from store.datasets import Dataset

NOTHING_HELD_OUT = "dataset_too_small", "no class has two images that differ: none can be held out", "Add images."
NOTHING_TO_JUDGE_BY = (
    "no_test_data",
    "val_fraction is 0 and the dataset has neither a val nor a test split: nothing would say how good the model is",
    "Add a test split, or set val_fraction=0.05.",
)
FEWER_THAN_DEVICES = "dataset_too_small", "a batch has fewer images than devices", "Set devices to 1."


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Images that a run trains on, validates on and is tested on; `batch` is what a step really takes."""

    train: int
    val: int
    test: int
    batch: int

    @property
    def steps_per_epoch(self) -> int:
        return self.train // self.batch if self.batch else 0


def has_val(dataset: Dataset) -> bool:
    return "val" in dataset.splits and dataset.splits["val"].images > 0


def carves_val(dataset: Dataset, recipe: Recipe) -> bool:
    """Whether the images to validate on are held out of train: the dataset has none for it, and some are wanted."""
    return recipe.val_fraction > 0 and not has_val(dataset)


def sizes(dataset: Dataset, recipe: Recipe) -> Sizes:
    """As the trainer splits: where there is no val split, `val_fraction` of each class is held out of train.

    Of a class that has too few images without a copy the trainer may hold out others: see `hold_out.stratified`.
    """
    images = {name: split.images for name, split in dataset.splits.items()}
    train, val = images.get("train", 0), images.get("val", 0)
    if carves_val(dataset, recipe) and "train" in dataset.splits:
        val = int(held_out(np.array(dataset.splits["train"].per_class), recipe.val_fraction).sum())
        train -= val
    return Sizes(train=train, val=val, test=images.get("test", 0), batch=min(recipe.batch_size, train))


def held_out(per_class: npt.NDArray[np.int64], fraction: float) -> npt.NDArray[np.int64]:
    """Images of each class that are held out: `fraction` of them, at least one of a class with two or more."""
    wanted = np.maximum(np.array([round(fraction * int(count)) for count in per_class]), 1)
    held: npt.NDArray[np.int64] = np.maximum(np.minimum(wanted, per_class - 1), 0)
    return held


def refusals(dataset: Dataset, recipe: Recipe) -> Iterator[tuple[str, str, str]]:
    """Why the trainer would refuse: code, message and hint of each reason."""
    train, counted = dataset.splits.get("train"), sizes(dataset, recipe)
    if len(dataset.classes) < 2:
        yield "too_few_classes", "the dataset has fewer than two classes", "Upload one with two or more."
    if train is None or train.images < 2:
        yield "no_training_data", "the dataset has no train split to learn from", "Add a train split."
    elif counted.val == 0 and recipe.val_fraction > 0:
        yield NOTHING_HELD_OUT
    elif counted.val == counted.test == 0:
        yield NOTHING_TO_JUDGE_BY
    elif counted.train == 1 and not trains_alone(recipe):
        message = f"there is one image to train on, and {recipe.network} does not learn from one at a time at this size"
        yield "dataset_too_small", message, "Add images."
    elif counted.batch < recipe.devices:
        yield FEWER_THAN_DEVICES
