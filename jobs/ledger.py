"""The ledger: every job's record, lease and history in Redis. Each change of state is one Lua script (`jobs/lua/`).

All methods raise `redis.RedisError` when Redis cannot be reached; none leaves anything half done.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, cast
from uuid import uuid4

import orjson
from redis import Redis

from jobs import keys, scripts
from jobs.model import LANES, TERMINAL, Event, Job, JobError, Kind, Lane, State

LEASE_MS = 30_000
RENEW_SECONDS = 5.0
IDEMPOTENCY_MS = 48 * 3600 * 1000


class JobNotFound(LookupError):
    """No job has this id."""


class IdempotencyConflict(Exception):
    """The idempotency key was used before, for another request."""


class LeaseLost(Exception):
    """Another claim holds the job, or it has ended: whoever gets this must stop and write nothing more."""


@dataclass(frozen=True)
class Submitted:
    job_id: str
    created: bool


@dataclass(frozen=True)
class Claim:
    """The right to run a job, until another claim takes it."""

    job_id: str
    number: int
    kind: Kind
    spec: dict[str, Any]


@dataclass(frozen=True)
class Cancelled:
    """What a cancellation found and did. `refused`: it had ended; `publishing`: its result is just being published."""

    before: State
    outcome: Literal["cancelled", "cancelling", "refused", "publishing"]


def _dumps(value: object) -> str:
    return orjson.dumps(value).decode()


class Ledger:
    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self._scripts = scripts.register(redis)

    def _run(self, name: str, *args: str | float) -> Any:  # noqa: ANN401 - each script answers in its own shape
        return self._scripts[name](args=args)

    # Asking ...

    def submit(
        self, kind: Kind, spec: dict[str, Any], *, job_id: str | None = None, idempotency: tuple[str, str] | None = None
    ) -> Submitted:
        """Write a job down as queued: on disk when this returns.

        `idempotency` is (key, digest of the request): the same pair answers with the first job, the same key with
        another digest raises IdempotencyConflict.
        """
        key, digest = idempotency or ("", "-")
        wanted = job_id or f"job_{uuid4().hex}"
        found, outcome = self._run("submit", wanted, kind, LANES[kind], _dumps(spec), key, digest, IDEMPOTENCY_MS)
        if outcome == "conflict":
            raise IdempotencyConflict(key)
        return Submitted(found, outcome == "created")

    def cancel(self, job_id: str) -> Cancelled:
        answer = self._run("cancel", job_id)
        if not answer:
            raise JobNotFound(job_id)
        return Cancelled(State(answer[0]), answer[1])

    # Working ...

    def claim(self, lane: Lane, *, owner: str, token: str) -> Claim | None:
        """The job of `lane` that has been due longest, now running under a new claim; None when nothing is due."""
        answer = self._run("claim", lane, owner, token, LEASE_MS)
        if not answer:
            return None
        return Claim(job_id=answer[0], number=int(answer[1]), kind=Kind(answer[3]), spec=orjson.loads(answer[2]))

    def renew(self, claim: Claim) -> State:
        return State(self._held(self._run("renew", claim.job_id, claim.number, LEASE_MS)))

    def emit(
        self,
        claim: Claim,
        sequence: int,
        events: list[tuple[str, dict[str, Any]]],
        *,
        patch: dict[str, dict[str, Any]] | None = None,
    ) -> None:
        """Append events and update fields of the record (`progress`, `latest`, `best`).

        `sequence` counts up from 1 within a claim; a number that was seen is not written again.
        """
        fields = {name: _dumps(value) for name, value in (patch or {}).items()}
        flat = [part for kind, data in events for part in (kind, _dumps(data))]
        self._held(self._run("emit", claim.job_id, claim.number, sequence, _dumps(fields), *flat))

    def begin_publishing(self, claim: Claim) -> bool:
        """From here on the job cannot be cancelled; False when it was cancelled before."""
        return str(self._held(self._run("publishing", claim.job_id, claim.number))) == "ok"

    def succeed(self, claim: Claim, result: dict[str, Any]) -> State:
        return State(self._held(self._run("finish", claim.job_id, claim.number, State.SUCCEEDED, _dumps(result))))

    def fail(self, claim: Claim, error: JobError) -> State:
        data = error.model_dump_json()
        return State(self._held(self._run("finish", claim.job_id, claim.number, State.FAILED, data)))

    def cancelled(self, claim: Claim) -> State:
        return State(self._held(self._run("finish", claim.job_id, claim.number, State.CANCELLED, "{}")))

    def release(self, claim: Claim, *, crash: JobError | None) -> State:
        """Give the job back: after a crash (it counts, three in a row fail the job) or in good order (`crash=None`)."""
        how = "crashed" if crash else "stopped"
        data = crash.model_dump_json() if crash else "{}"
        return State(self._held(self._run("release", claim.job_id, claim.number, how, data)))

    @staticmethod
    def _held(answer: str) -> str:
        if answer == "lost":
            raise LeaseLost
        return answer

    # Mending ...

    def leases(self) -> list[tuple[Job, float]]:
        """The jobs that are held, each with its lease's end in ms of Redis's clock."""
        held = cast("list[tuple[str, float]]", self.redis.zrange(keys.LEASES, 0, -1, withscores=True))
        found = []
        for job_id, until in held:
            record = self.redis.hgetall(keys.job(job_id))
            if record:
                found.append((Job.model_validate(record), until))
        return found

    def expire(self, job: Job, *, owner_is_dead: bool) -> bool:
        """Take a lease away, if it is past or its owner is known to be gone. True when this call did it."""
        error = JobError(code="worker_lost", message="The worker that ran the job went away.")
        why = "dead" if owner_is_dead else "late"
        return bool(self._run("expire", job.id, job.claim, why, error.model_dump_json()))

    def clock(self) -> float:
        """Redis's time, ms."""
        seconds, micros = self.redis.time()
        return float(seconds) * 1000 + float(micros) / 1000

    def due(self, lane: Lane) -> int:
        """How many jobs of a lane could be claimed now."""
        return int(self.redis.zcount(keys.due(lane), "-inf", self.clock() + 1))

    def unarchived(self) -> list[str]:
        return cast("list[str]", self.redis.zrange(keys.UNARCHIVED, 0, 99))

    def archived(self, job_id: str) -> None:
        self.redis.zrem(keys.UNARCHIVED, job_id)

    # Reading ...

    def get(self, job_id: str) -> Job:
        record = self.redis.hgetall(keys.job(job_id))
        if not record:
            raise JobNotFound(job_id)
        return Job.model_validate(record)

    def state(self, job_id: str) -> State:
        found = self.redis.hget(keys.job(job_id), "state")
        if found is None:
            raise JobNotFound(job_id)
        return State(str(found))

    def page(
        self, *, limit: int, after: str | None = None, state: State | None = None, kind: Kind | None = None
    ) -> tuple[list[Job], bool]:
        """Jobs, newest first, from behind job `after`; and whether there are more."""
        index = keys.state(state) if state else keys.ALL
        start = 0
        if after is not None:
            rank = cast("int | None", self.redis.zrevrank(index, after))
            start = rank + 1 if rank is not None else self._behind(index, after)
        found: list[Job] = []
        while len(found) <= limit:
            ids = cast("list[str]", self.redis.zrevrange(index, start, start + limit))
            if not ids:
                break
            start += len(ids)
            with self.redis.pipeline(transaction=False) as pipe:
                for job_id in ids:
                    pipe.hgetall(keys.job(job_id))
                records = [Job.model_validate(record) for record in pipe.execute() if record]
            found += [job for job in records if kind is None or job.kind == kind]
        return found[:limit], len(found) > limit

    def _behind(self, index: str, after: str) -> int:
        """Where to go on in `index` when the cursor's job has left it: behind every job that is newer than it."""
        created = self.redis.zscore(keys.ALL, after)
        if created is None:
            raise JobNotFound(after)
        return int(self.redis.zcount(index, f"({created}", "+inf"))

    def count(self) -> dict[State, int]:
        return {state: int(self.redis.zcard(keys.state(state))) for state in State}

    def events(self, job_id: str, *, after: str = "0-0", limit: int = 100) -> tuple[list[Event], bool]:
        """Events with ids above `after`, oldest first; and whether there are more."""
        if not self.redis.exists(keys.job(job_id)):
            raise JobNotFound(job_id)
        entries = cast(
            "list[tuple[str, dict[str, str]]]", self.redis.xrange(keys.events(job_id), f"({after}", "+", limit + 1)
        )
        return [event(entry_id, fields) for entry_id, fields in entries[:limit]], len(entries) > limit


def event(entry_id: str, fields: dict[str, str]) -> Event:
    """An entry of a job's stream, read."""
    at = datetime.fromtimestamp(int(entry_id.partition("-")[0]) / 1000, UTC)
    return Event(id=entry_id, type=fields["type"], at=at, data=orjson.loads(fields["data"]))


def ends(kind: str) -> bool:
    """Whether an event of this type is a job's last."""
    return kind in TERMINAL
