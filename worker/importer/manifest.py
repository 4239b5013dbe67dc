"""CSV and JSONL manifests inside an archive: which file is of which class, and optionally of which split."""

import contextlib
import csv
import io
import unicodedata
from collections.abc import Iterator, Sequence
from typing import IO, Any

import orjson

from store.datasets import FileNote, SplitName
from worker.importer.archive import STREAM_ERRORS, Archive, Member
from worker.importer.names import Parts
from worker.importer.plan import IMAGE_SUFFIXES, Plan, Planned, may_be_image, plan_folders, split_named, suffix
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
        with archive.open(manifest) as stream:
            _read_rows(manifest, _rows(manifest, stream) or iter(()), by_parts, used, plan)
    depth = _common_depth([image.member.parts for image in plan.images])
    plan.images = [
        Planned(image.member, "/".join(image.member.parts[depth:]), image.split, image.label) for image in plan.images
    ]
    ignored = [m for m in archive.files if m.parts not in used and m not in manifests]
    plan.skipped += [
        FileNote(file=m.name, reason="not named in the manifest" if may_be_image(m.parts) else "not an image")
        for m in ignored
    ]
    return plan


def _manifests(archive: Archive) -> list[Member]:
    """Those to read, by name. Raises JobRefused where it is not clear which is meant."""
    tables = [member for member in archive.files if suffix(member.parts[-1]) in _SUFFIXES]
    usual = [member for member in tables if member.parts[-1].lower().partition(".")[0] in _STEMS]
    found = [member for member in usual if _fits(archive, member)]
    return sorted(
        found or _unusual(archive, [member for member in tables if member not in usual]),
        key=lambda member: member.parts,
    )


def _unusual(archive: Archive, tables: Sequence[Member]) -> list[Member]:
    """The one of these tables that is a manifest without the name of one; none where folders tell the classes."""
    images = [member for member in archive.files if suffix(member.parts[-1]) in IMAGE_SUFFIXES]
    images = images or [member for member in archive.files if may_be_image(member.parts)]
    if not tables or _in_class_folders(images):
        return []
    paths = [member.parts for member in images]
    above = min(paths, default=())[: _common_depth(paths)]  # the folder that holds every image
    at_top = [member for member in tables if member.parts[:-1] == above[: len(member.parts) - 1]]
    by_parts = {member.parts: member for member in images}
    found = [member for member in at_top if _names_an_image(archive, member, by_parts)]
    if len(found) > 1:
        names = ", ".join(sorted(member.name for member in found)[:5])
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


def _fits(archive: Archive, member: Member) -> bool:
    with archive.open(member) as stream:
        return _rows(member, stream) is not None


def _names_an_image(archive: Archive, table: Member, images: dict[Parts, Member]) -> bool:
    """Whether a row gives one of them a label. A table that cannot be read names none: nobody called it a manifest."""
    with contextlib.suppress(JobRefused, *STREAM_ERRORS), archive.open(table) as stream:
        for row in _rows(table, stream) or ():
            file = _value(row, FILE_COLUMNS)
            if file and _value(row, LABEL_COLUMNS) and _find(file, table.parts[:-1], images):
                return True
    return False


def _read_rows(manifest: Member, rows: Iterator[Row], files: dict[Parts, Member], used: set[Parts], plan: Plan) -> None:
    folder = manifest.parts[:-1]
    default = split_named(manifest.parts[-1].partition(".")[0]) or (split_named(folder[-1]) if folder else None)
    for number, row in enumerate(rows, start=1):
        file, label = _value(row, FILE_COLUMNS), _value(row, LABEL_COLUMNS)
        if not file or not label:
            plan.skipped.append(FileNote(file=f"{manifest.name}: row {number}", reason="it lacks a file or a label"))
            continue
        member = _find(file, folder, files)
        if member is None:
            plan.skipped.append(FileNote(file=file[:500], reason="named in the manifest, but not in the archive"))
        elif member.parts in used:
            plan.skipped.append(FileNote(file=member.name, reason="named twice in the manifest"))
        else:
            used.add(member.parts)
            split = _split(manifest, number, _value(row, SPLIT_COLUMNS), default)
            plan.images.append(Planned(member, member.name, split, label))


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
