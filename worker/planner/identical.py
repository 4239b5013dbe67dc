"""Images that are in more than one place: in train and test, in train under two labels, or there again and again."""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from models.recipes import Recipe
from store.datasets import Dataset, SplitName
from store.splits import Split
from worker.planner.problems import Problem, error, note, warning
from worker.trainer.data import opened
from worker.trainer.hold_out import stratified
from worker.trainer.split_sizes import NOTHING_HELD_OUT, carves_val, sizes

SECONDS = 2.0

_Hashed = tuple[int, int]  # the hash of an image's content, and its label


class _Clock:
    """Time that is used up, and how many images it was enough for."""

    def __init__(self, seconds: float) -> None:
        self._until, self.compared, self.over = time.monotonic() + seconds, 0, False

    def out_of_time(self) -> bool:
        self.over = time.monotonic() >= self._until
        return self.over


def compare(folder: Path, dataset: Dataset, recipe: Recipe, *, seconds: float = SECONDS) -> list[Problem]:
    """By a hash of the pixels where images are stored as pixels, else of their files: an image that was saved again in
    another way is not found. What was not reached within the `seconds` is a note.

    Raises JobRefused where the files are damaged.
    """
    splits = {
        name: opened(folder, dataset, name, pixels=False) for name, split in dataset.splits.items() if split.images
    }
    if "train" not in splits:
        return []
    clock = _Clock(seconds)
    train = list(_hashes(splits["train"], clock))
    what = "bytes" if splits["train"].pixels is None else "pixels"
    found = list(_contradicting(train, what))
    if carves_val(dataset, recipe) and not clock.over:
        found += _held_out(train, dataset, recipe)
    found += _repeated(train, splits, what, clock)
    if clock.over:
        images = sum(len(split) for split in splits.values())
        message = (
            f"{clock.compared:,} of {images:,} images were compared with each other, train first: all of them take "
            "longer than a plan may"
        )
        hint = "Compare the others before the upload, where that matters."
        found.append(note("identical_images_unchecked", message, hint))
    return found


def _contradicting(train: list[_Hashed], what: str) -> Iterator[Problem]:
    known: dict[int, int] = {}
    other_label: tuple[int, int] | None = None
    contradicting = 0
    for index, (content, label) in enumerate(train):
        if known.setdefault(content, label) != label:
            contradicting += 1
            other_label = other_label or (index, label)
    if other_label is not None:
        index, label = other_label
        yield warning(
            "contradicting_labels",
            f"{contradicting:,} images in train have the {what} of another one and another label; the first is image "
            f"{index} of class index {label}",
            "Correct the labels, or remove these images.",
        )


def _held_out(train: list[_Hashed], dataset: Dataset, recipe: Recipe) -> Iterator[Problem]:
    """Where the trainer holds out another number of images than the descriptor lets expect."""
    labels = np.array([label for _, label in train], dtype=np.int64)
    hashes = np.array([content for content, _ in train], dtype=np.uint64)
    _, held = stratified(labels, hashes, fraction=recipe.val_fraction)
    expected = sizes(dataset, recipe).val
    if len(held) == 0:
        yield error(*NOTHING_HELD_OUT)
    elif len(held) != expected:
        message = f"{len(held):,} images are held out of train, not {expected:,}: copies of an image stay together"
        yield note("copies_stay_together", message, "Nothing to do, unless the copies are a mistake.")


def _repeated(train: list[_Hashed], splits: dict[SplitName, Split], what: str, clock: _Clock) -> Iterator[Problem]:
    known = {content for content, _ in train}
    for name in ("val", "test"):
        if name not in splits:
            continue
        again = [index for index, (content, _) in enumerate(_hashes(splits[name], clock)) if content in known]
        if again:
            yield warning(
                f"identical_images_in_{name}",
                f"{len(again):,} of {len(splits[name]):,} images in {name} have the {what} of one in train; the first "
                f"is image {again[0]}: the metrics would be too good",
                f"Remove them from train or from {name}.",
            )


def _hashes(split: Split, clock: _Clock) -> Iterator[_Hashed]:
    """Of each image in turn: a hash of its content, and its label; until the time is used up."""
    for index, label in enumerate(split.labels.tolist()):
        if clock.out_of_time():
            return
        clock.compared += 1
        yield split.content_hash(index), label
