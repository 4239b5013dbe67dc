"""Batches that engines have computed since the server's start.

An engine tells of its own since its start. What each process of one told last is kept in a file beside the metrics of
all HTTP processes (`PROMETHEUS_MULTIPROC_DIR`; without it, in memory), so that the sum stays when an engine ends. What
it computed between the last look and its end is missing.
"""

import fcntl
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock

import orjson

from app.inference.figures import EngineFigures
from app.rows import FOLDER

_PROCESSES = 4  # of one version that are kept apart; those before them are one sum
_ENDED = ""  # the name of that sum
_VERSIONS = 1000  # of which the longest unseen go first

_Told = dict[str, dict[str, dict[str, int]]]  # `name@version` → process → images in a batch → batches


class BatchTally:
    """Its calls block: for threads."""

    def __init__(self) -> None:
        folder = os.environ.get(FOLDER)
        self._path = None if folder is None else Path(folder) / "batches.json"
        self._told: _Told = {}
        self._alone = Lock()

    def total(self, engines: Iterable[EngineFigures]) -> dict[tuple[str, str], Mapping[int, int]]:
        """For each model and version how many batches of so many images there were, by what the engines tell now."""
        with self._alone, self._turn():
            told = self._read()
            for engine in engines:
                if engine.batches:
                    _note(told, engine)
            for oldest in list(told)[:-_VERSIONS]:
                del told[oldest]
            with suppress(OSError):  # a full disk: what is known is told all the same
                self._write(told)
            return {_names(ref): sum(map(_counter, each.values()), Counter()) for ref, each in told.items()}

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if self._path is None:
            yield
            return
        with self._path.with_suffix(".lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _read(self) -> _Told:
        if self._path is not None:
            with suppress(FileNotFoundError):
                self._told = orjson.loads(self._path.read_bytes())
        return self._told

    def _write(self, told: _Told) -> None:
        if self._path is not None:
            made = self._path.with_suffix(".tmp")
            made.write_bytes(orjson.dumps(told))
            made.replace(self._path)


def _note(told: _Told, engine: EngineFigures) -> None:
    """What it has told more than before: it was asked by several, whose answers may come here in another order."""
    ref = f"{engine.model}@{engine.version}"
    processes = told[ref] = told.pop(ref, {})
    known = processes.setdefault(engine.process, {})
    for size, count in engine.batches.items():
        known[str(size)] = max(known.get(str(size), 0), count)
    while len(processes) - (_ENDED in processes) > _PROCESSES:
        ended = processes.pop(next(process for process in processes if process != _ENDED))
        before = _counter(processes.get(_ENDED, {}))
        processes[_ENDED] = {str(size): count for size, count in (before + _counter(ended)).items()}


def _names(ref: str) -> tuple[str, str]:
    name, _, version = ref.rpartition("@")
    return name, version


def _counter(batches: Mapping[str, int]) -> Counter[int]:
    return Counter({int(size): count for size, count in batches.items()})
