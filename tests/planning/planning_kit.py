"""Datasets to plan with: descriptors of every kind, and a small one whose pixels lie on disk."""

from datetime import UTC, datetime
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from models.recipes import Recipe, resolve
from store.datasets import Dataset, ImageSummary, Report, Source, SplitSummary
from store.layout import Layout

PIXELS = ImageSummary(sizes={"28x28": 100}, modes={"L": 100}, uniform=True, height=28, width=28, channels=1)


def described(
    splits: dict[str, tuple[int, ...]],
    *,
    image: ImageSummary = PIXELS,
    report: Report | None = None,
    classes: tuple[str, ...] = ("cat", "dog", "frog"),
) -> Dataset:
    """A dataset with so many images of each class in each split."""
    summaries = {name: SplitSummary(images=sum(counts), per_class=counts) for name, counts in splits.items()}
    return Dataset(
        id="ds_pets",
        name="pets",
        digest="sha256:" + "0" * 64,
        created_at=datetime.now(UTC),
        source=Source(format="image_folder"),
        classes=classes,
        splits=summaries,
        image=image,
        report=report or Report(images=sum(each.images for each in summaries.values())),
    )


def images(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise, 28 × 28, in grey, of three classes in turn."""
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 28, 28, 1), dtype=np.uint8)
    return pixels, np.arange(count) % 3


def on_disk(layout: Layout, splits: dict[str, tuple[np.ndarray, np.ndarray]], *, encoded: bool = False) -> Dataset:
    """With pixels, or `encoded`: as files that are not said to be all alike."""
    counts = {name: tuple(np.bincount(labels, minlength=3).tolist()) for name, (_, labels) in splits.items()}
    dataset = described(counts, image=PIXELS.model_copy(update={"uniform": False}) if encoded else PIXELS)
    folder = layout.dataset(dataset.id)
    (folder / "data").mkdir(parents=True)
    for name, (pixels, labels) in splits.items():
        np.save(folder / "data" / f"{name}.labels.npy", labels.astype(np.int64))
        if not encoded:
            np.save(folder / "data" / f"{name}.images.npy", pixels)
            continue
        files = [png(image) for image in pixels]
        lengths = np.array([len(file) for file in files])
        np.save(folder / "data" / f"{name}.index.npy", np.stack([np.cumsum(lengths) - lengths, lengths], axis=1))
        (folder / "data" / f"{name}.blob").write_bytes(b"".join(files))
    dataset.write(folder)
    return dataset


def png(image: np.ndarray) -> bytes:
    buffer = BytesIO()
    Image.fromarray(image[:, :, 0]).save(buffer, "PNG")
    return buffer.getvalue()


def recipe(**overrides: Any) -> Recipe:
    return resolve("fashion-mnist-small", {"batch_size": 16, "precision": "fp32", **overrides})
