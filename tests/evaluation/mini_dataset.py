"""A dataset of real digits, as an import may have left it."""

import gzip

import numpy as np
from PIL import Image
from samples import MINI, png

from store.dataset_writer import DatasetWriter, Sample
from store.datasets import Dataset, Report, Source, SplitName
from store.layout import Layout

# As an import may have found them: not in the model's order.
CLASSES = ("9", "3", "0", "1", "2", "4", "5", "6", "7", "8")


def mini(part: str) -> tuple[np.ndarray, np.ndarray]:
    """Pixels uint8 (N, 28, 28) and classes uint8 (N,) of `t10k` (1,000) or `train` (2,000)."""
    images = gzip.decompress((MINI / f"{part}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((MINI / f"{part}-labels-idx1-ubyte.gz").read_bytes())
    return np.frombuffer(images, np.uint8, offset=16).reshape(-1, 28, 28), np.frombuffer(labels, np.uint8, offset=8)


def write_mini(
    layout: Layout,
    dataset_id: str,
    *,
    part: str,
    classes: tuple[str, ...] = CLASSES,
    files: bool = False,
    fourth: SplitName = "test",
    digits: str = "0123456789",
) -> Dataset:
    """A part of the subset as the split `test` of an import, every fourth image in the split `fourth`; with `files`, as
    PNG files of two sizes. Images of other than these `digits` are left out.
    """
    folder = layout.dataset(dataset_id)
    folder.mkdir()
    writer = DatasetWriter(folder)
    for number, (pixels, label) in enumerate(zip(*mini(part), strict=True)):
        if str(label) not in digits:
            continue
        image = Image.fromarray(pixels)
        if files and number % 2:
            image = image.resize((40, 31)).convert("RGB")
        sample = Sample(
            key=f"{number:05d}",
            split=fourth if number % 4 == 0 else "test",
            label=classes.index(str(label)) if str(label) in classes else int(label),
            encoded=png(image) if files else None,
            pixels=np.asarray(image).reshape(image.height, image.width, -1),
            size=image.size,
            mode=image.mode,
        )
        writer.add(sample)
    writer.assign_splits()
    return writer.finish(
        dataset_id=dataset_id,
        name="mini",
        source=Source(format="idx"),
        classes=classes,
        report=Report(images=len(writer)),
    )
