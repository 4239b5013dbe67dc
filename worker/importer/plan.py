"""From the names in an archive to what each file is: its split and its class. Pure functions over names."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from store.datasets import FileNote, SplitName
from worker.importer.archive import Member
from worker.importer.names import Parts
from worker.job_process import JobRefused

SPLIT_NAMES: dict[str, SplitName] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
IMAGE_SUFFIXES = frozenset({"jpg", "jpeg", "jpe", "jfif", "png", "webp", "gif", "bmp", "dib", "tif", "tiff"})
# Files of these kinds lie beside images in honest archives; anything else unknown is looked at.
_TEXT_SUFFIXES = frozenset({"txt", "md", "rst", "csv", "tsv", "json", "jsonl", "ndjson", "xml", "html", "htm", "log"})
_OTHER_SUFFIXES = _TEXT_SUFFIXES | {
    "pdf",
    "py",
    "ipynb",
    "yaml",
    "yml",
    "toml",
    "ini",
    "cfg",
    "npy",
    "npz",
    "mat",
    "db",
    "zip",
    "gz",
}


@dataclass(frozen=True)
class Planned:
    """An image to be: `key` is its place in the dataset's order and its name in the report."""

    member: Member
    key: str
    split: SplitName | None
    label: str


@dataclass
class Plan:
    """`empty` names class folders that hold no file."""

    format: Literal["image_folder", "manifest"]
    images: list[Planned]
    skipped: list[FileNote] = field(default_factory=list)
    empty: set[str] = field(default_factory=set)


def suffix(name: str) -> str:
    return name.rpartition(".")[2].lower() if "." in name else ""


def may_be_image(parts: Parts) -> bool:
    return suffix(parts[-1]) not in _OTHER_SUFFIXES


def split_named(name: str) -> SplitName | None:
    return SPLIT_NAMES.get(name.lower())


def wrapper_depth(paths: Sequence[Parts]) -> int:
    """How many folders around everything mean nothing: `my-data/` in `my-data/train/cat/1.jpg`.

    A class folder stays, so does one named like a split.
    """
    depth = 0
    while True:
        firsts = {path[depth] if len(path) > depth + 1 else None for path in paths}
        if len(firsts) != 1 or None in firsts:
            return depth
        name = next(iter(firsts))
        if name is None or split_named(name) or all(len(path) <= depth + 2 for path in paths):
            return depth
        depth += 1


def has_split_folders(paths: Iterable[Parts]) -> bool:
    """Whether `train/…` are splits, with class folders inside, or a class that happens to be called train."""
    depths = Counter(len(path) > 2 for path in paths if split_named(path[0]) and len(path) > 1)
    return depths[True] > depths[False]


def plan_folders(files: Sequence[Member], folders: Iterable[Parts]) -> Plan:
    """`train/<class>/…` and `test/…` (also val), or `<class>/…` alone. Raises JobRefused where no image is named."""
    candidates = [member for member in files if may_be_image(member.parts)]
    skipped = [FileNote(file=m.name, reason="not an image") for m in files if not may_be_image(m.parts)]
    if not candidates:
        raise no_images("it holds no image files")
    inside = [member.parts for member in candidates if len(member.parts) > 1]
    depth = wrapper_depth(inside) if inside else 0
    splits = has_split_folders(parts[depth:] for parts in inside)
    plan = Plan("image_folder", [], skipped)
    seen: set[str] = set()
    for member in candidates:
        parts = member.parts[depth:]
        split = split_named(parts[0]) if splits and parts else None
        reason = None
        if splits and split is None:
            reason = "not in a train, val or test folder"
        elif len(parts) < (3 if splits else 2):
            reason = "not in a class folder"
        key = "/".join((split, *parts[1:]) if split else parts)
        if reason is None and key in seen:
            reason = "a file of this name came before"
        if reason is not None:
            plan.skipped.append(FileNote(file=member.name, reason=reason))
            continue
        seen.add(key)
        plan.images.append(Planned(member, key, split, parts[1] if splits else parts[0]))
    if not plan.images:
        raise no_images("its images lie in no class folder")
    named = {image.label for image in plan.images}
    level = depth + (2 if splits else 1)
    filled = {member.parts[:level] for member in files}
    for folder in folders:
        at_class_level = len(folder) == level and (not splits or split_named(folder[depth]))
        if at_class_level and folder[-1] not in named and folder not in filled:
            plan.empty.add(folder[-1])
    return plan


def no_images(reason: str) -> JobRefused:
    return JobRefused(
        "no_images",
        f"the archive gives no images: {reason}",
        "Put the images in one folder per class, or add a manifest.csv with the columns file and label.",
    )
