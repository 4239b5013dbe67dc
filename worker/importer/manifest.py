"""CSV and JSONL manifests inside an archive: which file is of which class, and optionally of which split."""

import csv
import io
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any, NamedTuple

import orjson

from store.datasets import FileNote, SplitName
from worker.importer.archive import Archive, Member
from worker.importer.names import Parts
from worker.importer.plan import IMAGE_SUFFIXES, Plan, Planned, may_be_image, plan_folders, split_named, suffix
from worker.importer.streams import STREAM_ERRORS, machine_failed
from worker.job_process import JobRefused

FILE_COLUMNS = ("file", "path", "filename", "file_name", "filepath", "image", "image_path")
LABEL_COLUMNS = ("label", "class", "class_name", "category")
SPLIT_COLUMNS = ("split", "set", "subset")
_STEMS = frozenset(
    {"manifest", "labels", "metadata", "annotations", "index", "dataset", "train", "val", "valid", "test"}
)
_SUFFIXES = frozenset({"csv", "tsv", "jsonl", "ndjson"})
_LARGEST_LINE = 2**20

Row = dict[str, Any]


class Entry(NamedTuple):
    """What a row says, empty where it says nothing."""

    file: str
    label: str
    split: str


@dataclass(frozen=True)
class Manifest:
    """A table that was read: once, for in a compressed tar to go back to it is to decompress all before it again."""

    member: Member
    entries: list[Entry]


def plan_manifests(archive: Archive) -> Plan | None:
    """The plan that the archive's manifests state; None where it has none with columns for file and label.

    Manifests are the tables with a usual name, wherever they lie; where none of those fits and folders tell no classes,
    the one table at the top that labels an image. Raises JobRefused where several do, or one cannot be read.
    """
    by_parts = {member.parts: member for member in archive.files}
    plan = Plan("manifest", [])
    used: set[Parts] = set()
    manifests = _manifests(archive)
    if not manifests:
        return None
    for manifest in manifests:
        _add(manifest, by_parts, used, plan)
    depth = _common_depth([image.member.parts for image in plan.images])
    plan.images = [
        Planned(image.member, "/".join(image.member.parts[depth:]), image.split, image.label) for image in plan.images
    ]
    read = {manifest.member.parts for manifest in manifests}
    ignored = [m for m in archive.files if m.parts not in used and m.parts not in read]
    plan.skipped += [
        FileNote(file=m.name, reason="not named in the manifest" if may_be_image(m.parts) else "not an image")
        for m in ignored
    ]
    return plan


def _manifests(archive: Archive) -> list[Manifest]:
    """Those there are, by name. Raises JobRefused where it is not clear which is meant."""
    tables = [member for member in archive.files if suffix(member.parts[-1]) in _SUFFIXES]
    tables.sort(key=lambda member: member.offset)
    found = [manifest for member in tables if _is_usual(member) and (manifest := _read(archive, member))]
    return sorted(
        found or _unusual(archive, [member for member in tables if not _is_usual(member)]),
        key=lambda manifest: manifest.member.parts,
    )


def _is_usual(table: Member) -> bool:
    return table.parts[-1].lower().partition(".")[0] in _STEMS


def _unusual(archive: Archive, tables: Sequence[Member]) -> list[Manifest]:
    """The one of these tables that is a manifest without the name of one; none where folders tell the classes."""
    images = [member for member in archive.files if suffix(member.parts[-1]) in IMAGE_SUFFIXES]
    images = images or [member for member in archive.files if may_be_image(member.parts)]
    if not tables or _in_class_folders(images):
        return []
    paths = [member.parts for member in images]
    above = min(paths, default=())[: _common_depth(paths)]  # the folder that holds every image
    at_top = [member for member in tables if member.parts[:-1] == above[: len(member.parts) - 1]]
    by_parts = {member.parts: member for member in images}
    found = [manifest for member in at_top if (manifest := _read_if_it_labels(archive, member, by_parts))]
    if len(found) > 1:
        names = ", ".join(sorted(manifest.member.name for manifest in found)[:5])
        raise JobRefused(
            "bad_manifest",
            f"{len(found)} tables have columns for file and label: {names}",
            "Call the right one manifest.csv, or those of the splits train.csv, val.csv and test.csv.",
        )
    return found


def _in_class_folders(images: Sequence[Member]) -> bool:
    """Whether these lie in two or more; train and test alone, with every image right in them, are none."""
    try:
        planned = plan_folders(images, ()).images
    except JobRefused:
        return False
    loose = all(split_named(image.label) and image.key.count("/") == 1 for image in planned)
    return len({image.label for image in planned}) > 1 and not loose


def _read(archive: Archive, member: Member) -> Manifest | None:
    """None where it has no columns for file and label."""
    with archive.open(member) as stream:
        rows = _rows(member, stream)
        return None if rows is None else Manifest(member, [_entry(row) for row in rows])


def _read_if_it_labels(archive: Archive, member: Member, images: dict[Parts, Member]) -> Manifest | None:
    """None where no row gives one of the images a label, also for what cannot be read: nobody called it a manifest."""
    manifest, labels = Manifest(member, []), False
    try:
        with archive.open(member) as stream:
            for row in _rows(member, stream) or ():
                entry = _entry(row)
                manifest.entries.append(entry)
                labels = labels or bool(entry.label and _find(entry.file, member.parts[:-1], images))
    except (JobRefused, *STREAM_ERRORS) as error:
        if labels or machine_failed(error):
            raise
    return manifest if labels else None


def _entry(row: Row) -> Entry:
    return Entry(_value(row, FILE_COLUMNS), _value(row, LABEL_COLUMNS), _value(row, SPLIT_COLUMNS))


def _add(manifest: Manifest, files: dict[Parts, Member], used: set[Parts], plan: Plan) -> None:
    table, folder = manifest.member, manifest.member.parts[:-1]
    default = split_named(table.parts[-1].partition(".")[0]) or (split_named(folder[-1]) if folder else None)
    for number, entry in enumerate(manifest.entries, start=1):
        if not entry.file or not entry.label:
            plan.skipped.append(FileNote(file=f"{table.name}: row {number}", reason="it lacks a file or a label"))
            continue
        member = _find(entry.file, folder, files)
        if member is None:
            plan.skipped.append(FileNote(file=entry.file[:500], reason="named in the manifest, but not in the archive"))
        elif member.parts in used:
            plan.skipped.append(FileNote(file=member.name, reason="named twice in the manifest"))
        else:
            used.add(member.parts)
            split = _split(table, number, entry.split, default)
            plan.images.append(Planned(member, member.name, split, entry.label))


def _split(manifest: Member, number: int, value: str, default: SplitName | None) -> SplitName | None:
    if not value:
        return default
    split = split_named(value)
    if split is None:
        raise _bad(manifest, f"row {number} names the split {value[:80]!r}; there are train, val and test")
    return split


def _find(file: str, folder: Parts, files: dict[Parts, Member]) -> Member | None:
    """The member that a row means: by its path from the manifest's folder, else from the archive's root."""
    name = unicodedata.normalize("NFC", file)  # as the archive's names are
    parts = tuple(part for part in name.replace("\\", "/").split("/") if part not in {"", "."})
    return files.get((*folder, *parts)) or files.get(parts)


def _value(row: Row, columns: Sequence[str]) -> str:
    for column in columns:
        value = row.get(column)
        if value is not None and not isinstance(value, list | dict):
            return unicodedata.normalize("NFC", str(value)).strip()
    return ""


def _rows(manifest: Member, stream: IO[bytes]) -> Iterator[Row] | None:
    """The manifest's rows with lower-case column names; None where it has no columns for file and label."""
    text = _lines(manifest, io.TextIOWrapper(stream, encoding="utf-8-sig", newline=""))
    try:
        first = next(text, "")
    except JobRefused:  # not text: some other file that happens to have such a name
        return None
    rest = iter([first])
    if suffix(manifest.parts[-1]) in {"jsonl", "ndjson"}:
        if not _is_manifest(_json_row(manifest, first) if first.strip() else {}):
            return None
        return (_json_row(manifest, line) for lines in (rest, text) for line in lines if line.strip())
    delimiter = max(",;\t", key=first.count)
    try:
        header = [name.strip().lower() for name in next(csv.reader([first], delimiter=delimiter), [])]
    except csv.Error:  # a cell longer than any column's name
        return None
    if not _is_manifest(dict.fromkeys(header)):
        return None
    return _csv_rows(manifest, csv.DictReader(text, fieldnames=header, delimiter=delimiter, strict=True))


def _is_manifest(row: Row) -> bool:
    return any(name in row for name in FILE_COLUMNS) and any(name in row for name in LABEL_COLUMNS)


def _lines(manifest: Member, text: io.TextIOWrapper) -> Iterator[str]:
    try:
        while line := text.readline(_LARGEST_LINE):
            yield line
    except UnicodeDecodeError as error:
        raise _bad(manifest, "it is not UTF-8 text") from error


def _json_row(manifest: Member, line: str) -> Row:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise _bad(manifest, f"a line is not JSON: {error}") from error
    if not isinstance(row, dict):
        raise _bad(manifest, "a line is not a JSON object")
    return {name.strip().lower(): value for name, value in row.items()}


def _csv_rows(manifest: Member, rows: Iterator[Row]) -> Iterator[Row]:
    try:
        yield from rows
    except csv.Error as error:
        raise _bad(manifest, str(error)) from error


def _common_depth(paths: Sequence[Parts]) -> int:
    """How many leading folders all paths share."""
    shortest, longest = min(paths, default=()), max(paths, default=())
    depth = 0
    while depth < min(len(shortest), len(longest)) - 1 and shortest[depth] == longest[depth]:
        depth += 1
    return depth


def _bad(manifest: Member, reason: str) -> JobRefused:
    return JobRefused(
        "bad_manifest",
        f"{manifest.name} cannot be used: {reason}",
        "A manifest has the columns file and label, and optionally split (train, val or test).",
    )
