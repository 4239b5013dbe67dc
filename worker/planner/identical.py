"""Images that are in more than one place: in train and test, or in train under two labels."""

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

from store.datasets import Dataset, SplitName
from store.splits import Split
from worker.planner.problems import Problem, note, warning
from worker.trainer.data import opened

SECONDS = 2.0


class _Clock:
    """Time that is used up, and how many images it was enough for."""

    def __init__(self, seconds: float) -> None:
        self._until, self.compared, self.over = time.monotonic() + seconds, 0, False

    def out_of_time(self) -> bool:
        self.over = time.monotonic() >= self._until
        return self.over


def compare(folder: Path, dataset: Dataset, *, seconds: float = SECONDS) -> list[Problem]:
    """By a hash of the pixels where images are stored as pixels, else of their files: an image that was saved again in
    another way is not found. What was not reached within the `seconds` is a note.

    Raises JobRefused where the files are damaged.
    """
    splits = {name: opened(folder, dataset, name) for name, split in dataset.splits.items() if split.images}
    if "train" not in splits:
        return []
    clock = _Clock(seconds)
    found = list(_repeated(splits, clock))
    if clock.over:
        images = sum(len(split) for split in splits.values())
        message = (
            f"{clock.compared:,} of {images:,} images were compared with each other, train first: all of them take "
            "longer than a plan may"
        )
        hint = "Compare the others before the upload, where that matters."
        found.append(note("identical_images_unchecked", message, hint))
    return found


def _repeated(splits: dict[SplitName, Split], clock: _Clock) -> Iterator[Problem]:
    known: dict[bytes, int] = {}
    other_label: tuple[int, int] | None = None
    contradicting = 0
    what = "bytes" if splits["train"].pixels is None else "pixels"
    for index, (digest, label) in enumerate(_digests(splits["train"], clock)):
        if known.setdefault(digest, label) != label:
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
    for name in ("val", "test"):
        if name not in splits:
            continue
        again = [index for index, (digest, _) in enumerate(_digests(splits[name], clock)) if digest in known]
        if again:
            yield warning(
                f"identical_images_in_{name}",
                f"{len(again):,} of {len(splits[name]):,} images in {name} have the {what} of one in train; the first "
                f"is image {again[0]}: the metrics would be too good",
                f"Remove them from train or from {name}.",
            )


def _digests(split: Split, clock: _Clock) -> Iterator[tuple[bytes, int]]:
    """Of each image in turn: a hash of its content, and its label; until the time is used up."""
    for index, label in enumerate(split.labels.tolist()):
        if clock.out_of_time():
            return
        content = split.encoded(index) if split.pixels is None else split.pixels[index].tobytes()
        clock.compared += 1
        yield hashlib.blake2b(content, digest_size=16).digest(), label
