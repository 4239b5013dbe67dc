"""The real data sets, or class-balanced parts of them, as archives to upload; and their test images as files."""

import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.first_hour import FASHION, png
from benchmarks.idx_files import Labels, read_split

NAMES = {"mnist": [str(digit) for digit in range(10)], "fashion-mnist": FASHION}


@dataclass(frozen=True, kw_only=True)
class Part:
    """An archive; `train` of its images are to train with and to validate. Its test images, each with its class."""

    archive: Path
    train: int
    tests: list[tuple[bytes, str]]


def build(data: Path, name: str, folder: Path, *, train: int | None, test: int | None) -> Part:
    """So many images of `cifar10`, `mnist` or `fashion-mnist`, all of a split where None; `folder` gets the archive."""
    target = folder / f"{name}-{train or 'all'}-{test or 'all'}.zip"
    if name == "cifar10":
        return _photographs(data / "cifar10.zip", target, train=train, test=test)
    return _idx(data / name, target, NAMES[name], train=train, test=test)


def balanced(labels: Labels, most: int | None) -> Labels:
    """Places of the first images of each class, equally many of each, `most` together; all of them where None."""
    if most is None or most >= len(labels):
        return np.arange(len(labels))
    classes = np.unique(labels)
    each = most // len(classes)
    if each < 2:  # one to train with and one to validate with
        raise SystemExit(f"{most} images are too few for {len(classes)} classes: take {2 * len(classes)} or more")
    return np.sort(np.concatenate([np.flatnonzero(labels == label)[:each] for label in classes]))


def _idx(source: Path, target: Path, names: list[str], *, train: int | None, test: int | None) -> Part:
    chosen = {}
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("classes.txt", "\n".join(names))
        for part, most in (("train", train), ("t10k", test)):
            pixels, labels = read_split(source, part)
            places = balanced(labels, most)
            pixels, labels = pixels[places], labels[places]
            header = struct.pack(">4I", 0x803, *pixels.shape)
            archive.writestr(f"{part}-images-idx3-ubyte", header + pixels.tobytes())
            header = struct.pack(">2I", 0x801, len(labels))
            archive.writestr(f"{part}-labels-idx1-ubyte", header + labels.astype(np.uint8).tobytes())
            chosen[part] = pixels, labels
    tests = [(png(image), names[label]) for image, label in zip(*chosen["t10k"], strict=True)]
    return Part(archive=target, train=len(chosen["train"][1]), tests=tests)


def _photographs(source: Path, target: Path, *, train: int | None, test: int | None) -> Part:
    with zipfile.ZipFile(source) as whole:
        members = sorted(each.filename for each in whole.infolist() if not each.is_dir())
        parts = [_members(members, "train", train), _members(members, "test", test)]
        if sum(map(len, parts)) == len(members):
            target = source
        else:
            with zipfile.ZipFile(target, "w") as archive:
                for name in parts[0] + parts[1]:
                    archive.writestr(name, whole.read(name))
        tests = [(whole.read(name), name.split("/")[1]) for name in parts[1]]
    return Part(archive=target, train=len(parts[0]), tests=tests)


def _members(members: list[str], split: str, most: int | None) -> list[str]:
    found = [name for name in members if name.startswith(f"{split}/")]
    _, labels = np.unique([name.split("/")[1] for name in found], return_inverse=True)
    return [found[place] for place in balanced(labels, most)]
