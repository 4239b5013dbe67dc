"""The ledger in plain Python: what the Lua scripts are to do, said a second time and in another way.

Time is a counter: what is queued later comes later, and what crashed comes after everything that did not.
"""

from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from jobs.answers import Answer
from jobs.model import HELD, LANES, TERMINAL, JobError, Kind, Lane, Priority, State

ERROR = JobError(code="crashed", message="it died", hint="look", log="a long story / told twice")
SHOWN = {"code": "crashed", "message": "it died", "hint": "look"}
LOST = {"code": "worker_lost", "message": "The worker that ran the job went away.", "hint": ""}
CRASH_LOOP = "The job crashed three times without a new checkpoint; the last time: "
BEFORE_ALL = -1_000_000  # the due time of a job that has only to be published
STARTED_LATER = 1_000_000  # the due time of a job that waits after a crash is above this


class LostError(Exception):
    """The claim no longer counts."""


@dataclass
class Record:
    kind: Kind
    state: State
    priority: Priority
    created: int
    due: int | None = None
    place: int | None = None
    claim: int = 0
    token: str | None = None
    publishing: bool = False
    given_back: tuple[int, str] | None = None
    crashes: int = 0
    since: int = 0
    emitted: tuple[int, int] = (0, 0)
    late: bool = False
    archived: bool = True
    finish: bool = False
    checkpoint: int = 0
    version: int = 0
    settings: dict[str, Any] = field(default_factory=dict)
    wanted: frozenset[State] = frozenset()
    to_tell: int = 0
    retry_of: str | None = None
    retried_as: str | None = None
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    @property
    def orders(self) -> dict[str, Any]:
        return {
            "version": self.version,
            "settings": self.settings,
            "finish": self.finish,
            "checkpoint": self.checkpoint,
        }

    @property
    def published(self) -> bool:
        return self.publishing and self.state not in TERMINAL


class Model:
    def __init__(self) -> None:
        self.jobs: dict[str, Record] = {}
        self.keys: dict[str, tuple[str, str]] = {}
        self.answers: dict[tuple[str, ...], Answer] = {}
        self._clock = 0

    def tick(self) -> int:
        self._clock += 1
        return self._clock

    # Moves ...

    def _move(self, job: Record, to: State, **data: Any) -> None:
        if job.state in HELD and to not in HELD:
            job.token = None
            job.late = False
        job.state = to
        if to is not State.QUEUED:
            job.due = None
        if to in TERMINAL:
            job.archived = False
        job.events.append((to, data))
        job.to_tell += to in job.wanted

    def _queue(self, job: Record, after: int = 0, at: int | None = None, **data: Any) -> None:
        self._move(job, State.QUEUED, **data)
        job.due = after + self.tick() if at is None else at

    def _create(self, job_id: str, kind: Kind, priority: Priority, wanted: frozenset[State], **data: Any) -> Record:
        job = Record(kind, State.QUEUED, priority, self.tick(), wanted=wanted)
        self._queue(job, **data)
        self.jobs[job_id] = job
        return job

    # Asking ...

    def submit(
        self, job_id: str, kind: Kind, priority: Priority, wanted: frozenset[State], *, key: str | None, digest: str
    ) -> tuple[str, str]:
        if job_id in self.jobs:
            return job_id, "created"
        if key and key in self.keys:
            known, its_digest = self.keys[key]
            return known, "known" if its_digest == digest else "conflict"
        self._create(job_id, kind, priority, wanted, reason="submitted")
        if key:
            self.keys[key] = (job_id, digest)
        return job_id, "created"

    def retry(self, job_id: str, new_id: str) -> tuple[str, str] | None:
        job = self.jobs.get(job_id)
        if job is None:
            return None
        if job.retried_as:
            return job.retried_as, "created" if job.retried_as == new_id else "known"
        if job.state not in (State.FAILED, State.CANCELLED):
            return job.state, "refused"
        again = self._create(new_id, job.kind, job.priority, job.wanted, reason="retried", retry_of=job_id)
        again.retry_of = job_id
        again.settings = dict(job.settings)
        again.version = 1 if job.settings else 0
        job.retried_as = new_id
        job.archived = False
        return new_id, "created"

    # Verbs ...

    def verb(self, name: str, job_id: str, token: str, **arguments: Any) -> Answer | None:
        if (name, job_id, token) in self.answers:
            return self.answers[name, job_id, token]
        job = self.jobs.get(job_id)
        if job is None:
            return None
        before = job.state
        outcome = getattr(self, f"_{name}")(job_id, job, **arguments)
        answer = self.answers[name, job_id, token] = Answer(before, outcome)
        return answer

    def _cancel(self, _: str, job: Record) -> str:
        if job.state in (State.CANCELLED, State.CANCELLING):
            return "unchanged"
        if job.state in TERMINAL:
            return "refused"
        if job.published:
            return "publishing"
        self._move(job, State.CANCELLING if job.state in HELD else State.CANCELLED)
        return "done"

    def _pause(self, _: str, job: Record) -> str:
        if job.state in (State.PAUSED, State.PAUSING):
            return "unchanged"
        if job.state not in (State.QUEUED, State.RUNNING):
            return "refused"
        if job.published:
            return "publishing"
        self._move(job, {State.QUEUED: State.PAUSED, State.RUNNING: State.PAUSING}[job.state])
        return "done"

    def _resume(self, _: str, job: Record, reason: str = "resumed") -> str:
        if job.state in (State.QUEUED, State.RUNNING):
            return "unchanged"
        if job.state not in (State.PAUSED, State.PAUSING):
            return "refused"
        if job.published:
            return "publishing"
        if job.state is State.PAUSING:
            self._move(job, State.RUNNING, reason=reason)
        else:
            job.since = 0
            self._queue(job, reason=reason)
        return "done"

    def _finish(self, job_id: str, job: Record) -> str:
        waits = job.state in (State.PAUSED, State.PAUSING)
        if job.kind is not Kind.TRAIN:
            return "not_for_kind"
        if job.state in TERMINAL or job.state is State.CANCELLING:
            return "refused"
        if job.finish and not waits:
            return "unchanged"
        if job.published:
            return "publishing"
        if job.claim == 0:
            return "nothing_to_keep"
        if not job.finish:
            job.finish = True
            job.version += 1
            job.events.append(("finish_requested", {}))
        if waits:
            self._resume(job_id, job, reason="finish")
        return "done"

    def _checkpoint(self, _: str, job: Record) -> str:
        if job.kind is not Kind.TRAIN:
            return "not_for_kind"
        if job.state in TERMINAL or job.state is State.CANCELLING:
            return "refused"
        if job.published:
            return "publishing"
        job.checkpoint += 1
        job.version += 1
        job.events.append(("checkpoint_requested", {"number": job.checkpoint}))
        return "done"

    def _patch(self, _: str, job: Record, settings: dict[str, Any], priority: Priority | None) -> str:
        if settings and job.kind is not Kind.TRAIN:
            return "not_for_kind"
        if job.state in TERMINAL or job.state is State.CANCELLING:
            return "refused"
        merged = {**job.settings, **settings}
        moved = priority is not None and priority != job.priority
        if merged == job.settings and not moved:
            return "unchanged"
        if job.published:
            return "publishing"
        data: dict[str, Any] = {"settings": merged}
        if merged != job.settings:
            job.settings = merged
            job.version += 1
        if priority is not None and moved:
            job.priority = priority
            data["priority"] = priority
        job.events.append(("settings_changed", data))
        return "done"

    def _delete(self, job_id: str, job: Record) -> str:
        last = job
        while last.retried_as in self.jobs:
            last = self.jobs[last.retried_as]
        if job.state not in TERMINAL or last.state not in TERMINAL:
            return "refused"
        tried, again = self.jobs.get(job.retry_of or ""), self.jobs.get(job.retried_as or "")
        if tried and tried.retried_as == job_id:
            tried.retried_as = job.retried_as if again else None
            tried.archived = False
        if job.retry_of and again:
            again.retry_of = job.retry_of
            again.archived = False
        del self.jobs[job_id]
        return "done"

    # Working ...

    def queue(self, lane: Lane) -> list[str]:
        """Everything queued in a lane, in the order in which it is to be taken."""
        order = list(Priority)
        queued = [(order.index(job.priority), job.due, name) for name, job in self.jobs.items() if job.due is not None]
        return [name for *_, name in sorted(queued) if LANES[self.jobs[name].kind] is lane]

    def claim(self, lane: Lane, token: str, owner: str) -> tuple[str, int] | None:
        for name, job in self.jobs.items():
            if job.state in HELD and job.token == token:
                return name, job.claim
        due = [name for name in self.queue(lane) if (self.jobs[name].due or 0) < STARTED_LATER]
        if not due:
            return None
        job = self.jobs[due[0]]
        job.claim += 1
        job.place = job.due
        job.token = token
        self._move(job, State.RUNNING, claim=job.claim, owner=owner)
        return due[0], job.claim

    def _holder(self, job_id: str, number: int) -> Record:
        job = self.jobs.get(job_id)
        if job is None or job.state not in HELD or job.claim != number:
            raise LostError
        return job

    def look(self, job_id: str, number: int) -> tuple[State, int]:
        job = self._holder(job_id, number)
        return job.state, job.version

    def renew(self, job_id: str, number: int) -> tuple[State, int]:
        self._holder(job_id, number).late = False
        return self.look(job_id, number)

    def emit(self, job_id: str, number: int, sequence: int, kind: str, data: dict[str, Any]) -> None:
        job = self._holder(job_id, number)
        if job.emitted[0] == number and job.emitted[1] >= sequence:
            return
        job.emitted = (number, sequence)
        if kind == "checkpoint":
            job.since = 0
        job.events.append((kind, data))

    def begin_publishing(self, job_id: str, number: int) -> bool:
        job = self._holder(job_id, number)
        if job.state is State.CANCELLING:
            return False
        job.publishing = True
        return True

    def settle(self, job_id: str, number: int, to: State, data: dict[str, Any]) -> State:
        known = self._given_back(job_id, number, to)
        if known:
            return known
        job = self._holder(job_id, number)
        job.given_back = (number, to)
        if job.state is State.CANCELLING:
            to, data = State.CANCELLED, {}
        self._move(job, to, **data)
        return to

    def release(self, job_id: str, number: int, how: str) -> State:
        known = self._given_back(job_id, number, how)
        if known:
            return known
        job = self._holder(job_id, number)
        job.given_back = (number, how)
        if how == "crashed":
            self._crash(job, SHOWN)
        elif job.state is State.CANCELLING:
            self._move(job, State.CANCELLED)
        elif job.state is State.PAUSING and not job.published:
            self._move(job, State.PAUSED, reason="stopped")
        else:
            self._queue(job, at=BEFORE_ALL if job.published else job.place, reason="stopped")
        return job.state

    def _given_back(self, job_id: str, number: int, how: str) -> State | None:
        job = self.jobs.get(job_id)
        return job.state if job and job.claim == number and job.given_back == (number, how) else None

    def _crash(self, job: Record, error: dict[str, Any], *, lost: bool = False) -> None:
        job.crashes += 1
        job.since += 1
        if job.state is State.CANCELLING:
            self._move(job, State.CANCELLED)
        elif job.since >= 3 and not job.published:
            self._move(job, State.FAILED, **{**error, "code": "crash_loop", "message": CRASH_LOOP + error["message"]})
        elif job.state is State.PAUSING and not job.published:
            self._move(job, State.PAUSED, reason="crashed", crashes=job.crashes, error=error)
        elif lost and job.published and job.since <= 3:
            self._queue(job, at=BEFORE_ALL, reason="crashed", crashes=job.crashes, error=error)
        elif lost and job.since == 1:
            self._queue(job, at=job.place, reason="crashed", crashes=job.crashes, error=error)
        else:
            self._queue(job, after=STARTED_LATER, reason="crashed", crashes=job.crashes, error=error)

    # Mending ...

    def expire(self, job_id: str, number: int, *, dead: bool) -> bool:
        try:
            job = self._holder(job_id, number)
        except LostError:
            return False
        if not (dead or job.late):
            return False
        self._crash(job, LOST, lost=True)
        return True

    def archived(self, job_id: str, retried_as: str | None) -> bool:
        job = self.jobs.get(job_id)
        if job is None:
            return retried_as is None
        if job.retried_as != retried_as:
            return False
        job.archived = True
        return True

    def sweep(self) -> int:
        old = [name for name, job in self.jobs.items() if job.state in TERMINAL and job.archived and not job.to_tell]
        for name in old:
            del self.jobs[name]
        return len(old)

    def snapshot(self) -> dict[str, Any]:
        return deepcopy({"jobs": self.jobs, "keys": self.keys})
