"""Images that are in more than one place: in train and test, or in train under two labels."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from store.datasets import Dataset, SplitName
from store.splits import Split
from worker.planner.problems import Problem, note, warning
from worker.trainer.data import opened

CHEAP_BYTES = 2**30  # about two seconds of hashing


def compare(folder: Path, dataset: Dataset) -> list[Problem]:
    """By a hash of the pixels, so only what is stored as pixels: datasets whose images are all alike in shape.

    Raises JobRefused where the files are damaged.
    """
    if not dataset.image.uniform:
        return []
    splits = {name: opened(folder, dataset, name) for name, split in dataset.splits.items() if split.images}
    size = sum(split.pixels.nbytes for split in splits.values() if split.pixels is not None)
    if size > CHEAP_BYTES:
        message = f"images were not compared with each other: {size / 2**30:.1f} GiB take longer than a plan may"
        return [note("identical_images_unchecked", message, "Compare them before the upload where that matters.")]
    return list(_repeated(splits))


def _repeated(splits: dict[SplitName, Split]) -> Iterator[Problem]:
    known: dict[bytes, int] = {}
    other_label: tuple[int, int] | None = None
    contradicting = 0
    if "train" not in splits:
        return
    for index, (digest, label) in enumerate(_digests(splits["train"])):
        if known.setdefault(digest, label) != label:
            contradicting += 1
            other_label = other_label or (index, label)
    if other_label is not None:
        index, label = other_label
        yield warning(
            "contradicting_labels",
            f"{contradicting:,} images in train have the pixels of another one and another label; the first is image "
            f"{index} of class index {label}",
            "Correct the labels, or remove these images.",
        )
    for name in ("val", "test"):
        if name not in splits:
            continue
        again = [index for index, (digest, _) in enumerate(_digests(splits[name])) if digest in known]
        if again:
            yield warning(
                f"identical_images_in_{name}",
                f"{len(again):,} of {len(splits[name]):,} images in {name} are in train too, pixel by pixel; the first "
                f"is image {again[0]}: the metrics would be too good",
                f"Remove them from train or from {name}.",
            )


def _digests(split: Split) -> Iterator[tuple[bytes, int]]:
    if split.pixels is None:
        return
    for pixels, label in zip(split.pixels, split.labels.tolist(), strict=True):
        yield hashlib.blake2b(pixels.tobytes(), digest_size=16).digest(), label
