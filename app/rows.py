"""Counters of more things than there is room for: a row of numbers for each of those that were counted lately.

prometheus_client's files keep every label for ever. Here each process has a file of fixed size in the same folder
(`PROMETHEUS_MULTIPROC_DIR`; without it, memory of its own). Where all rows are taken, what is new gets the row of what
was counted longest ago, whose numbers go to the first row, that of all others. An answer is the sum over the files of
all processes, those that ended included.
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
_TRIES = 100  # to read while no row changes hands, and the pause between them in seconds
_PAUSE = 0.001


@dataclass
class Row:
    """`latest` is the greatest that was given, 0 where none was."""

    numbers: npt.NDArray[np.float64]
    latest: float = 0.0


class Rows:
    """Counts from one thread; may be read from any."""

    def __init__(self, name: str, *, width: int, limit: int) -> None:
        """`width` numbers a row, `limit` rows with a key of their own. `name` is the file's."""
        fields: list[Any] = [("key", f"S{_KEY_BYTES}"), ("changes", "i8"), ("seen", "f8"), ("latest", "f8")]
        self._kind = np.dtype([*fields, ("numbers", "f8", (width,))])
        self._name, self._width = name, width
        folder = os.environ.get(FOLDER)
        self._folder = None if folder is None else Path(folder)
        self._rows = np.zeros(limit + 1, self._kind) if self._folder is None else self._open(self._folder, limit + 1)
        self._numbers = self._rows["numbers"]
        self._places = {_read(key): place for place, key in enumerate(self._rows["key"]) if place and key}

    def _open(self, folder: Path, count: int) -> npt.NDArray[Any]:
        """This process's file, mapped into memory. One that is there is of another process that had the same number."""
        path = folder / f"{self._name}_{os.getpid()}.rows"
        if not path.exists():
            made = path.with_suffix(".tmp")
            made.write_bytes(bytes(count * self._kind.itemsize))  # with blocks: a full disk is told of here
            made.replace(path)
        return np.memmap(path, self._kind, mode="r+")

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
        place = 1 + int(np.argmin(self._rows["seen"][1:]))
        row, others = self._rows[place], self._rows[0]
        self._places.pop(_read(row["key"]), None)
        row["changes"] += 1
        others["numbers"] += row["numbers"]
        others["latest"] = max(others["latest"], row["latest"])
        row["key"], row["numbers"], row["latest"] = _BETWEEN.join(key).encode(), 0.0, 0.0
        row["changes"] += 1
        self._places[key] = place
        return place

    def read(self) -> dict[tuple[str, ...], Row]:
        """What all processes counted of each key; `OTHERS` is among them where a row has changed hands."""
        found: dict[tuple[str, ...], Row] = {}
        for rows in self._all():
            taken = [place for place, key in enumerate(rows["key"]) if key or (not place and rows["numbers"][0].any())]
            for place in taken:
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
    """As they were at one moment: while a row changes hands, its count is odd. A process that died then left it so."""
    for _ in range(_TRIES):
        before = rows["changes"].copy()
        found = np.array(rows)
        if np.array_equal(before, rows["changes"]) and not (before % 2).any():
            break
        time.sleep(_PAUSE)
    return found


def _read(key: bytes) -> tuple[str, ...]:
    return tuple(key.decode().split(_BETWEEN)) if key else OTHERS
