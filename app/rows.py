"""Counters of more things than there is room for: a row of numbers for each of those that were counted lately.

prometheus_client's files keep every label for ever. Here each process has a file of fixed size in the same folder
(`PROMETHEUS_MULTIPROC_DIR`; without it, memory of its own). Where all rows are taken, what is new gets the row of what
was counted longest ago, whose numbers go to those of all others. An answer is the sum over the files of all processes,
those that ended included.

One word says which of two rows holds the numbers of all others, and which row's numbers are among them already: where
a row changes hands it is written once, so a reader is right wherever the process that counts was stopped or killed.
"""

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
OTHERS = ()  # the key of all that have no row of their own
_KEY_BYTES = 128  # a model's name has 63 at most
_BETWEEN = "\n"  # in no name
_TRIES = 100  # to read while no row changes hands
_PLACE_BITS = 20  # of the word: how often rows have changed hands, then a row's place, then 0 or 1, the others' row


@dataclass
class Row:
    """`latest` is the greatest that was given, 0 where none was."""

    numbers: npt.NDArray[np.float64]
    latest: float = 0.0


class Rows:
    """Counts from one thread; may be read from any."""

    def __init__(self, name: str, *, width: int, limit: int) -> None:
        """`width` numbers a row, `limit` rows with a key of their own. `name` is the file's."""
        fields: list[Any] = [("key", f"S{_KEY_BYTES}"), ("word", "i8"), ("seen", "f8"), ("latest", "f8")]
        self._kind = np.dtype([*fields, ("numbers", "f8", (width,))])
        self._name, self._width = name, width
        folder = os.environ.get(FOLDER)
        self._folder = None if folder is None else Path(folder)
        count = limit + 2
        self._rows = np.zeros(count, self._kind) if self._folder is None else self._open(self._folder, count)
        self._numbers = self._rows["numbers"]
        _, place, others = _parts(self._rows)
        if place:  # who had this file ended while that row changed hands
            self._hand_over(place, b"", others)
        self._places = {_read(key): place for place, key in enumerate(self._rows["key"]) if place > 1 and key}

    def _open(self, folder: Path, count: int) -> npt.NDArray[Any]:
        """This process's file, mapped into memory. One that is there is of another process that had the same number."""
        path = folder / f"{self._name}_{os.getpid()}.rows"
        if not path.exists():
            made = path.with_suffix(".tmp")
            made.write_bytes(bytes(count * self._kind.itemsize))  # with blocks: a full disk is told of here
            made.replace(path)
        return np.memmap(path, self._kind, mode="r+").view(np.ndarray)  # whose items are read without Python code

    def add(self, key: tuple[str, ...], amounts: Mapping[int, float], *, latest: float = 0.0) -> None:
        """`amounts`: what is added to which of the key's numbers."""
        place = self._places.get(key)
        if place is None:
            place = self._take(key)
        row, numbers = self._rows[place], self._numbers[place]
        for column, amount in amounts.items():
            numbers[column] += amount
        row["seen"], row["latest"] = time.time(), max(row["latest"], latest)

    def _take(self, key: tuple[str, ...]) -> int:
        """A row for the key: one that nobody had, which was seen at 0, or that of whoever was seen longest ago."""
        rows = self._rows
        place = 2 + int(np.argmin(rows["seen"][2:]))
        self._places.pop(_read(rows["key"][place]), None)
        before = _parts(rows)[2]
        others = 1 - before
        rows["numbers"][others] = rows["numbers"][before] + rows["numbers"][place]
        rows["latest"][others] = max(rows["latest"][before], rows["latest"][place])
        self._tell(place, others)
        self._hand_over(place, _BETWEEN.join(key).encode(), others)
        self._places[key] = place
        return place

    def _hand_over(self, place: int, key: bytes, others: int) -> None:
        """Empty the row, whose numbers are among the others', and let it count again."""
        row = self._rows[place]
        row["key"], row["numbers"], row["latest"] = key, 0.0, 0.0
        self._tell(0, others)

    def _tell(self, place: int, others: int) -> None:
        changes = _parts(self._rows)[0] + 1
        self._rows["word"][0] = (changes << _PLACE_BITS | place) << 1 | others

    def read(self) -> dict[tuple[str, ...], Row]:
        """What all processes counted of each key; `OTHERS` is among them where a row has changed hands."""
        found: dict[tuple[str, ...], Row] = {}
        for rows in self._all():
            _, changing, others = _parts(rows)
            named = [place for place, key in enumerate(rows["key"]) if key and place != changing]
            for place in [*([others] if rows["numbers"][others].any() else []), *named]:
                one = found.setdefault(_read(rows["key"][place]), Row(np.zeros(self._width)))
                one.numbers += rows["numbers"][place]
                one.latest = max(one.latest, float(rows["latest"][place]))
        return found

    def _all(self) -> Iterable[npt.NDArray[Any]]:
        if self._folder is None:
            yield _copy(self._rows)
            return
        for path in sorted(self._folder.glob(f"{self._name}_*.rows")):
            yield _copy(np.memmap(path, self._kind, mode="r"))


def _copy(rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """As they were while the word stayed the same."""
    for _ in range(_TRIES):
        before = int(rows["word"][0])
        found = np.array(rows)
        if int(rows["word"][0]) == before:
            break
    return found


def _parts(rows: npt.NDArray[Any]) -> tuple[int, int, int]:
    """Of the word: how often it changed, the row that changes hands (0 where none does), the row of the others."""
    rest, others = divmod(int(rows["word"][0]), 2)
    return *divmod(rest, 1 << _PLACE_BITS), others


def _read(key: bytes) -> tuple[str, ...]:
    return tuple(key.decode().split(_BETWEEN)) if key else OTHERS
