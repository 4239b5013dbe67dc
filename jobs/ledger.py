"""The ledger: every job's record, lease and history in Redis. Each change of state is one Lua script (`jobs/lua/`).

All methods raise `redis.RedisError` when Redis cannot be reached; none leaves anything half done, and each may reach
Redis twice with the same arguments: the second time changes nothing.
"""

from typing import Any, cast
from uuid import uuid4

import orjson
from redis import Redis

from jobs import keys
from jobs.answers import (
    Answer,
    Claim,
    IdempotencyConflict,
    JobNotFound,
    LeaseLost,
    Outcome,
    QueueFull,
    RetryRefused,
    Submitted,
)
from jobs.model import LANES, Held, Job, JobError, Kind, Lane, Orders, Priority, State, Webhook
from jobs.records import Records, check

LEASE_MS = 30_000
RENEW_SECONDS = 5.0
IDEMPOTENCY_MS = 48 * 3600 * 1000


def _dumps(value: object) -> str:
    return orjson.dumps(value).decode()


class Ledger(Records):
    """`most_unfinished`: how many jobs that have not ended there may be before another one is refused."""

    def __init__(self, redis: Redis, *, most_unfinished: int | None = None) -> None:
        super().__init__(redis)
        self._most = most_unfinished

    # Asking ...

    def check_room(self) -> None:
        """Raises QueueFull where a new job would be refused now."""
        if self._most is not None and self.unfinished() >= self._most:
            raise QueueFull

    def submit(
        self,
        kind: Kind,
        spec: dict[str, Any],
        *,
        job_id: str | None = None,
        idempotency: tuple[str, str] | None = None,
        priority: Priority = Priority.NORMAL,
        max_seconds: float | None = None,
        webhook: Webhook | None = None,
        traceparent: str | None = None,
    ) -> Submitted:
        """Write a job down as queued: on disk when this returns. `traceparent`: of the request, W3C Trace Context.

        `idempotency` is (key, digest of the request): the same pair answers with the first job, the same key with
        another digest raises IdempotencyConflict. Raises QueueFull.
        """
        key, digest = idempotency or ("", "-")
        wanted = job_id or _new_id()
        fields: list[str | float] = ["priority", priority]
        if max_seconds is not None:
            fields += ["max_seconds", max_seconds]
        if webhook is not None:
            fields += ["webhook", webhook.model_dump_json()]
        if traceparent is not None:
            fields += ["traceparent", traceparent]
        head = (wanted, kind, LANES[kind], _dumps(spec), key, digest, IDEMPOTENCY_MS, self._bound())
        found, outcome = self._run("submit", *head, *fields)
        if outcome == "full":
            raise QueueFull
        if outcome == "conflict":
            raise IdempotencyConflict(key)
        return Submitted(found, outcome == "created")

    def asked(self, idempotency: tuple[str, str]) -> str | None:
        """The job that was asked for by this pair, None where there is none. Raises IdempotencyConflict as `submit`."""
        key, digest = idempotency
        known = self.redis.get(keys.idempotency(key))
        if known is None:
            return None
        job_id, its_digest = str(known).split()
        if its_digest != digest:
            raise IdempotencyConflict(key)
        return job_id

    def retry(self, job_id: str, *, new_id: str | None = None) -> Submitted:
        """A new job that tries a failed or cancelled one again; the same one however often it is asked for.

        Raises JobNotFound, RetryRefused, QueueFull.
        """
        check(job_id)
        answer = self._run("retry", job_id, new_id or _new_id(), self._bound())
        if not answer:
            raise JobNotFound(job_id)
        found, outcome = answer
        if outcome == "refused":
            raise RetryRefused(State(found))
        if outcome == "full":
            raise QueueFull
        return Submitted(found, outcome == "created")

    def _bound(self) -> str:
        return "" if self._most is None else str(self._most)

    # Verbs. Each raises JobNotFound; with a token that it was called with before, it answers what it answered then.

    def cancel(self, job_id: str, token: str | None = None) -> Answer:
        return self._verb("cancel", job_id, token)

    def pause(self, job_id: str, token: str | None = None) -> Answer:
        """Out of the queue, or stopped with a checkpoint, until it is resumed."""
        return self._verb("pause", job_id, token)

    def resume(self, job_id: str, token: str | None = None) -> Answer:
        return self._verb("resume", job_id, token)

    def finish(self, job_id: str, token: str | None = None) -> Answer:
        """Ask a training to stop at its next step, with the epoch that its recipe's `keep` names."""
        return self._verb("finish", job_id, token)

    def checkpoint(self, job_id: str, token: str | None = None) -> Answer:
        """Ask a training for a checkpoint at its next step."""
        return self._verb("checkpoint", job_id, token)

    def patch(
        self, job_id: str, *, settings: dict[str, Any], priority: Priority | None = None, token: str | None = None
    ) -> Answer:
        """Change settings of a training (`lr`, `epochs`, `patience`) and a job's priority."""
        flat = [part for name, value in settings.items() for part in (name, _dumps(value))]
        return self._verb("patch", job_id, token, priority or "", *flat)

    def has_patched(self, job_id: str, token: str) -> bool:
        """Whether `patch` with this token has its answer, and changes nothing any more."""
        return bool(self.redis.exists(keys.verb_token("patch", job_id, token)))

    def delete(self, job_id: str, token: str | None = None) -> Answer:
        """Remove an ended job from the ledger: record, events, deliveries. Refused while a retry of it goes on."""
        return self._verb("delete", job_id, token)

    def _verb(self, name: str, job_id: str, token: str | None, *args: str) -> Answer:
        check(job_id)
        answer = self._run(name, job_id, f"{name}:{job_id}:{token or uuid4().hex}", *args)
        if not answer:
            raise JobNotFound(job_id)
        return Answer(State(answer[0]), cast("Outcome", answer[1]))

    # Working ...

    def claim(self, lane: Lane, *, owner: str, token: str) -> Claim | None:
        """The job of `lane` that is next, now running under a new claim; None when nothing is due."""
        answer = self._run("claim", lane, owner, token, LEASE_MS)
        if not answer:
            return None
        job_id, number, spec, kind, orders, ran_ms, max_seconds, retry_of, publishing, crashes, traceparent = answer
        return Claim(
            job_id=job_id,
            number=int(number),
            kind=Kind(kind),
            spec=orjson.loads(spec),
            orders=Orders.model_validate_json(orders),
            ran_ms=int(ran_ms),
            max_seconds=float(max_seconds) if max_seconds else None,
            retry_of=retry_of or None,
            publishing=orjson.loads(publishing) if publishing else None,
            crashes_in_a_row=int(crashes),
            traceparent=traceparent or None,
        )

    def renew(self, claim: Claim) -> Held:
        """Keep the claim for another `LEASE_MS`. Raises LeaseLost."""
        return self._told(claim, LEASE_MS)

    def look(self, claim: Claim) -> Held:
        """What `renew` answers, without renewing. Raises LeaseLost."""
        return self._told(claim, 0)

    def _told(self, claim: Claim, lease: int) -> Held:
        state, orders = self._run("renew", claim.job_id, claim.number, lease)
        return Held(State(self._held(state)), int(orders))

    def orders(self, claim: Claim) -> Orders:
        """Raises LeaseLost."""
        return Orders.model_validate_json(self._held(self._run("orders", claim.job_id, claim.number)))

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

    def begin_publishing(self, claim: Claim, result: dict[str, Any]) -> bool:
        """From here on the job's result stands, whatever is asked and whoever dies; False when it was cancelled before.

        `result`, what the process gave, is kept for the claim that has to end what this one began.
        """
        return str(self._held(self._run("publishing", claim.job_id, claim.number, _dumps(result)))) == "ok"

    def succeed(self, claim: Claim, result: dict[str, Any]) -> State:
        return State(self._held(self._run("settle", claim.job_id, claim.number, State.SUCCEEDED, _dumps(result))))

    def fail(self, claim: Claim, error: JobError) -> State:
        data = error.model_dump_json()
        return State(self._held(self._run("settle", claim.job_id, claim.number, State.FAILED, data)))

    def cancelled(self, claim: Claim) -> State:
        return State(self._held(self._run("settle", claim.job_id, claim.number, State.CANCELLED, "{}")))

    def release(self, claim: Claim, *, crash: JobError | None) -> State:
        """Give the job back: after a crash (it counts, three in a row fail the job) or in good order (`crash=None`).

        A job that is being published is queued again, however often.
        """
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
        jobs = {job.id: job for job in self._many([job_id for job_id, _ in held])}
        return [(jobs[job_id], until) for job_id, until in held if job_id in jobs]

    def expire(self, job: Job, *, owner_is_dead: bool, grace_ms: float = 0) -> bool:
        """Take a lease away, if its owner is known to be gone or it is past. True when this call did it.

        With a time of grace, a call that finds it past so long after the first that did. Past is also one that would
        last for more than two leases: it was given before Redis's clock was set back.
        """
        error = JobError(code="worker_lost", message="The worker that ran the job went away.")
        why = "dead" if owner_is_dead else "late"
        return bool(self._run("expire", job.id, job.claim, why, error.model_dump_json(), grace_ms, LEASE_MS))

    def long(self) -> list[str]:
        """Jobs with a long stream, of many the first hundred."""
        return cast("list[str]", self.redis.zrange(keys.LONG, 0, 99))

    def unarchived(self) -> list[str]:
        return cast("list[str]", self.redis.zrange(keys.UNARCHIVED, 0, 99))

    def archived(self, job_id: str, *, retried_as: str | None) -> bool:
        """The job's record is on disk, with `retried_as`. False where the ledger's has changed meanwhile."""
        return bool(self._run("archived", job_id, retried_as or ""))

    def trim(self, job_id: str, *, stored: str, keep: int) -> int:
        """Drop events up to id `stored` from the stream, but none of the newest `keep`. How many were dropped."""
        return int(self._run("trim", job_id, stored, keep))

    def sweep(self, *, older_than_ms: float, limit: int) -> int:
        """Remove ended jobs that ended so long ago, are on disk and have told whom they had to tell. How many."""
        return int(self._run("sweep", older_than_ms, limit))


def _new_id() -> str:
    return f"job_{uuid4().hex}"
