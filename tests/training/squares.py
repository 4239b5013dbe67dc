"""A small dataset that a network learns in seconds: where the bright square lies is the class."""

from datetime import UTC, datetime
from io import BytesIO

import numpy as np
from PIL import Image

from store.datasets import Dataset, ImageSummary, Report, Source, SplitSummary
from store.layout import Layout

CLASSES = ("left", "middle", "right")


def squares(count: int, seed: int, size: int = 28, channels: int = 1) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % len(CLASSES)
    pixels = generator.integers(0, 60, (count, size, size, channels), dtype=np.uint8)
    third = size // 3
    for i, label in enumerate(labels):
        y = generator.integers(0, size - third)
        pixels[i, y : y + third, label * third : (label + 1) * third] = 220
    return pixels, labels.astype(np.int64)


def write_dataset(
    layout: Layout, splits: dict[str, tuple[np.ndarray, np.ndarray]], *, encoded: bool = False, name: str = "ds_squares"
) -> Dataset:
    folder = layout.dataset(name)
    (folder / "data").mkdir(parents=True)
    for split, (pixels, labels) in splits.items():
        np.save(folder / "data" / f"{split}.labels.npy", labels)
        if not encoded:
            np.save(folder / "data" / f"{split}.images.npy", pixels)
            continue
        files = []
        for image in pixels:
            buffer = BytesIO()
            Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(buffer, "PNG")
            files.append(buffer.getvalue())
        ends = np.cumsum([len(file) for file in files])
        index = np.stack([ends - [len(file) for file in files], [len(file) for file in files]], axis=1)
        np.save(folder / "data" / f"{split}.index.npy", index.astype(np.int64))
        (folder / "data" / f"{split}.blob").write_bytes(b"".join(files))
    shape = next(iter(splits.values()))[0].shape
    dataset = Dataset(
        id=name,
        name="squares",
        digest="sha256:" + "0" * 64,
        created_at=datetime.now(UTC),
        source=Source(format="image_folder"),
        classes=CLASSES,
        splits={
            split: SplitSummary(images=len(y), per_class=tuple(np.bincount(y, minlength=len(CLASSES)).tolist()))
            for split, (_, y) in splits.items()
        },
        image=ImageSummary(sizes={}, modes={}, uniform=not encoded)
        if encoded
        else ImageSummary(sizes={}, modes={}, uniform=True, height=shape[1], width=shape[2], channels=shape[3]),
        report=Report(images=sum(len(y) for _, y in splits.values())),
    )
    dataset.write(folder)
    return dataset
