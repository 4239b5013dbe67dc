"""From the lines of a job's process to the ledger: in order, each once, progress at most twice a second."""

import time
from dataclasses import dataclass
from typing import Any

from redis import RedisError

from jobs.answers import Claim
from jobs.ledger import Ledger
from store.faults import point

PROGRESS_SECONDS = 0.5
MAX_HELD = 10_000
BATCH = 500  # a call must not take longer than a client waits for its answer


@dataclass(frozen=True)
class _Batch:
    """What is being delivered: sent again as it is until it arrives, so that a number always means the same events."""

    sequence: int
    events: list[tuple[str, dict[str, Any]]]
    patch: dict[str, dict[str, Any]]


class Reporter:
    """Keeps what could not be delivered while Redis is away, and delivers it later, in order."""

    def __init__(self, ledger: Ledger, claim: Claim) -> None:
        self._ledger, self._claim = ledger, claim
        self._sequence = 0
        self._events: list[tuple[str, dict[str, Any]]] = []
        self._dropped = 0
        self._checkpoint: dict[str, Any] | None = None  # the newest that was dropped: without it crashes would add up
        self._patch: dict[str, dict[str, Any]] = {}
        self._batch: _Batch | None = None
        self._progress: dict[str, Any] | None = None
        self._progress_sent = 0.0

    def take(self, kind: str, data: dict[str, Any]) -> None:
        if kind == "progress":
            self._progress = data
            return
        if kind == "epoch":
            self._patch["latest"] = data
            if data.get("best"):
                self._patch["best"] = data
        if len(self._events) < MAX_HELD:
            self._events.append((kind, data))
        else:  # an outage of days must not fill the memory
            self._dropped += 1
            self._checkpoint = data if kind == "checkpoint" else self._checkpoint

    def flush(self, *, final: bool = False) -> bool:
        """Deliver what is due; False when Redis is away. Raises LeaseLost."""
        self._add_progress(now=final)
        while self._batch or self._events or self._patch or self._dropped:
            if self._batch is None:
                self._tell_of_dropped()
                self._sequence += 1
                self._batch = _Batch(self._sequence, self._events[:BATCH], self._patch)
                self._events, self._patch = self._events[BATCH:], {}
            point("supervisor.before_emit")
            try:
                self._ledger.emit(self._claim, self._batch.sequence, self._batch.events, patch=self._batch.patch)
            except RedisError:
                return False
            self._batch = None
            point("supervisor.emitted")
        return True

    def _tell_of_dropped(self) -> None:
        if self._dropped and len(self._events) < MAX_HELD:
            message = f"{self._dropped} events were not kept while Redis was away"
            self._events.append(("warning", {"code": "events_dropped", "message": message}))
            if self._checkpoint is not None:
                self._events.append(("checkpoint", self._checkpoint))
            self._dropped, self._checkpoint = 0, None

    def _add_progress(self, *, now: bool) -> None:
        due = time.monotonic() - self._progress_sent >= PROGRESS_SECONDS
        if self._progress is not None and (now or (due and self._batch is None)):
            self._events.append(("progress", self._progress))
            self._patch["progress"] = self._progress
            self._progress, self._progress_sent = None, time.monotonic()
