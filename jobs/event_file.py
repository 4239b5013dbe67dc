"""`events.jsonl`: a job's events on disk, one JSON object a line, sorted by id, only ever appended to."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import orjson

from jobs.model import Event
from store.files import fsync_dir

_BLOCK = 64 * 1024


def order(event_id: str) -> tuple[int, int]:
    """What event ids are compared by: `<milliseconds>-<n>`."""
    milliseconds, _, number = event_id.partition("-")
    return int(milliseconds), int(number or 0)


def append(path: Path, newer: Callable[[str], tuple[list[Event], bool]]) -> str:
    """Append what is not in the file yet, durably; the id of the last event in it. One writer at a time.

    `newer` gives some events above an id, and whether there are more. A last line that a crash left unfinished is cut
    off first.
    """
    created = not path.exists()
    with path.open("a+b") as file:
        stored = _mend(file)
        more = True
        while more:
            events, more = newer(stored)
            file.write(b"".join(orjson.dumps(each.model_dump(mode="json")) + b"\n" for each in events))
            stored = events[-1].id if events else stored
        file.flush()
        os.fsync(file.fileno())
    if created:
        fsync_dir(path.parent)
    return stored


def read(path: Path, *, after: str, limit: int) -> list[Event]:
    """At most `limit` events with ids above `after`, oldest first. Raises FileNotFoundError."""
    found: list[Event] = []
    with path.open("rb") as file:
        file.seek(offset_above(file, after))
        while len(found) < limit and (line := file.readline()).endswith(b"\n"):
            each = Event.model_validate_json(line)
            if order(each.id) > order(after):  # always so, unless the file grew while its middle was looked for
                found.append(each)
    return found


def offset_above(file: BinaryIO, after: str) -> int:
    """Where the first line with an id above `after` begins; about log2(size) lines are read."""
    # Lines that begin before `low` are not above; lines that begin at `high` or behind are above, unfinished, or none.
    low, high, wanted = 0, file.seek(0, os.SEEK_END), order(after)
    while low < high:
        middle = (low + high) // 2
        if middle > low:
            file.seek(middle - 1)
            file.readline()
        else:
            file.seek(low)
        line = file.readline()
        if line.endswith(b"\n") and order(_id_of(line)) <= wanted:
            low = file.tell()
        else:
            high = middle
    return low


def _mend(file: BinaryIO) -> str:
    """Cut off last lines that are unfinished or unreadable; the id of the last whole one, `0-0` where there is none."""
    end = file.seek(0, os.SEEK_END)
    while end > 0:
        start, last = _last_line(file, end)
        try:
            if last.endswith(b"\n"):
                return _id_of(last)
        except (ValueError, KeyError, TypeError):  # a page that a power cut tore
            pass
        file.truncate(start)
        end = start
    return "0-0"


def _last_line(file: BinaryIO, end: int) -> tuple[int, bytes]:
    """Where the last line before `end` begins, and the line."""
    tail, start = b"", end
    while start > 0 and b"\n" not in tail[:-1]:
        step = min(_BLOCK, start)
        start -= step
        file.seek(start)
        tail = file.read(step) + tail
    begin = tail[:-1].rfind(b"\n") + 1
    return start + begin, tail[begin:]


def _id_of(line: bytes) -> str:
    return str(orjson.loads(line)["id"])
