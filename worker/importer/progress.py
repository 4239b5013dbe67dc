"""Tells where an import stands, twice a second, while it gets on, and notices the wish to stop."""

from types import TracebackType
from typing import Self

from worker.job_process import Stop, emit
from worker.signs_of_life import SignsOfLife

# Where each phase lies in the whole; decoding is nearly all of the time.
_PHASES = {"reading": (0.0, 0.05), "decoding": (0.05, 0.95), "writing": (0.95, 1.0)}


class Progress:
    """`with Progress(stop) as progress:` and then `at(phase, done, total)`, or `moved()`, once a minute at least."""

    def __init__(self, stop: Stop) -> None:
        self._stop = stop
        self._state = ("reading", 0, 0)
        self._alive = SignsOfLife(self._emit)

    def at(self, phase: str, done: int, total: int) -> None:
        """Note the place. Raises JobStopped where a stop was asked for."""
        changed, self._state = phase != self._state[0], (phase, done, total)
        if changed:
            self._emit()
        self.moved()

    def moved(self) -> None:
        """Note that the work gets on, where there is no place to tell. Raises JobStopped where a stop was asked for."""
        self._alive.moved()
        self._stop.check()

    def __enter__(self) -> Self:
        self._alive.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:  # the last word, and the record's: everything is done
            total = self._state[2]
            self._state = ("writing", total, total)
        self._alive.__exit__(kind, error, trace)

    def _emit(self) -> None:
        phase, done, total = self._state
        start, end = _PHASES[phase]
        fraction = start + (end - start) * (min(1.0, done / total) if total else 0.0)
        emit("progress", {"phase": phase, "done": done, "total": total, "fraction": round(fraction, 4)})
