"""MNIST's four IDX files, in a folder or a zip, as a dataset of this project."""

import gzip
import struct
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from store.dataset_writer import DatasetWriter, Sample
from store.datasets import Report, Source, SplitName
from store.layout import Layout

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


def read_split(source: Path, part: str) -> tuple[Pixels, Labels]:
    """(N, H, W) and (N,) of `train` or `t10k`. Ends the program where they are not there."""
    images, labels = (_member(source, f"{part}-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1"))
    count, height, width = struct.unpack(">3I", images[4:16])
    pixels = np.frombuffer(images, np.uint8, offset=16).reshape(count, height, width)
    return pixels, np.frombuffer(labels, np.uint8, offset=8).astype(np.int64)


def _member(source: Path, name: str) -> bytes:
    for candidate in (name, f"{name}.gz"):
        if source.is_dir() and (source / candidate).exists():
            data = (source / candidate).read_bytes()
        elif zipfile.is_zipfile(source):
            with zipfile.ZipFile(source) as archive:
                found = [each for each in archive.namelist() if Path(each).name == candidate]
                if not found:
                    continue
                data = archive.read(found[0])
        else:
            continue
        return gzip.decompress(data) if candidate.endswith(".gz") else data
    raise SystemExit(f"{source} holds no {name}[.gz]: give a folder or a zip with MNIST's four IDX files")


def write_dataset(layout: Layout, dataset_id: str, splits: dict[SplitName, tuple[Pixels, Labels]]) -> None:
    """As the importer writes it; the images of each split are (N, H, W)."""
    folder = layout.dataset(dataset_id)
    folder.mkdir()
    writer, most = DatasetWriter(folder), 0
    for split, (pixels, labels) in splits.items():
        most = max(most, int(labels.max()))
        for image, label in zip(pixels, labels, strict=True):
            writer.add(
                Sample(
                    key=f"{len(writer):06d}",
                    split=split,
                    label=int(label),
                    encoded=None,
                    pixels=image[:, :, None],
                    size=(image.shape[1], image.shape[0]),
                    mode="L",
                )
            )
    writer.assign_splits()
    classes = tuple(str(i) for i in range(most + 1))
    report = Report(images=len(writer))
    writer.finish(dataset_id=dataset_id, name="bench", source=Source(format="idx"), classes=classes, report=report)
