"""A worker that has stopped listening: jobs are due, the device is free, and no bell is answered.

Message queues' clients have such states, and none of them heals by waiting; a new process heals them all.
"""

import logging
import os
import time
from dataclasses import dataclass

from redis import RedisError

from jobs.ledger import Ledger
from jobs.model import Lane
from worker.lane import last_taken, lock_path
from worker.supervisor import Workplace

log = logging.getLogger(__name__)

IDLE_SECONDS = 30.0
LEAVE_SECONDS = 3.0  # for what a supervisor does after its process has ended
EXIT_CODE = 70  # whoever started the worker starts it again


@dataclass(frozen=True)
class _Waiting:
    """Since when (monotonic) jobs of a lane are due while nobody has taken its slot, last taken at `taken` (ns)."""

    since: float
    taken: int


class IdleWatch:
    """Looks now and then, from the worker's main process; ends it when a lane's jobs wait in vain.

    The jobs of its other lanes are stopped in good order first, as if the worker had got SIGTERM.
    """

    def __init__(self, ledger: Ledger, at: Workplace) -> None:
        self._ledger, self._at = ledger, at
        self._waiting: dict[Lane, _Waiting] = {}
        self._leave_at: float | None = None

    def look(self) -> None:
        """To be called every few seconds."""
        if self._leave_at is not None:
            self._leave()
        elif not self._at.drain.exists():
            try:
                for lane in Lane:
                    self._look_at(lane)
            except RedisError:  # nobody can tell whether a job is due
                self._waiting.clear()

    def _look_at(self, lane: Lane) -> None:
        taken = last_taken(lock_path(self._at.layout, lane, self._at.device))
        if taken is None or not self._ledger.due(lane):
            self._waiting.pop(lane, None)
            return
        before = self._waiting.get(lane)
        if before is None or before.taken != taken:
            self._waiting[lane] = _Waiting(time.monotonic(), taken)
        elif time.monotonic() - before.since >= IDLE_SECONDS:
            log.critical("jobs are due and the worker hears no bell: it starts again", extra={"lane": lane})
            self._leave_at = time.monotonic() + self._at.drain_seconds + LEAVE_SECONDS
            self._at.drain.touch()
            self._leave()

    def _leave(self) -> None:
        """End this process as soon as no slot is held any more; its pool processes die with it."""
        held = [lane for lane in Lane if last_taken(lock_path(self._at.layout, lane, self._at.device)) is None]
        if not held or (self._leave_at is not None and time.monotonic() >= self._leave_at):
            self._at.drain.unlink(missing_ok=True)
            os._exit(EXIT_CODE)
