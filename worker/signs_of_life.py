"""Progress lines from a job's process while one long step runs, twice a second; but not of one that hangs."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

_PERIOD = 0.5  # seconds
_PATIENCE = 60.0  # seconds after which a step that has not moved is left to speak for itself: to be seen as stalled


class SignsOfLife:
    """`with SignsOfLife(say) as alive:` calls `say` from a thread; `alive.moved()` is to be called once a minute.

    `period` and `patience` are in seconds: how often `say` is called, half a second where None; and how long a step may
    take that does not call `moved`, a minute where None.
    """

    def __init__(self, say: Callable[[], None], *, period: float | None = None, patience: float | None = None) -> None:
        self._say, self._period = say, _PERIOD if period is None else period
        self._patience = _PATIENCE if patience is None else patience
        self._moved = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._tell, name="progress", daemon=True)

    def moved(self) -> None:
        self._moved = time.monotonic()

    @contextmanager
    def patient(self, seconds: float) -> Iterator[None]:
        """What is done within may take so long without a call of `moved`."""
        before, self._patience = self._patience, seconds
        self.moved()
        try:
            yield
        finally:
            self.moved()
            self._patience = before

    def __enter__(self) -> Self:
        self._say()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        if error is None:
            self._say()  # the last word: everything is done

    def _tell(self) -> None:
        while not self._ended.wait(self._period):
            if time.monotonic() - self._moved < self._patience:
                self._say()
