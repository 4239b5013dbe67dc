"""The random test's machine: people ask, workers work, time passes; and what must hold after each step."""

import json

import hypothesis.strategies as st
from hypothesis.stateful import invariant, rule
from ledger_asking import OWNER, Asking, again, knows_jobs, which
from ledger_dump import Found, expected_record
from ledger_model import ERROR, SHOWN, STARTED_LATER, LostError

from jobs import keys
from jobs.answers import LeaseLost
from jobs.model import HELD, LANES, TERMINAL, Job, Lane, Priority, State

FAR = 50_000  # ms, less than the longest pause; nothing becomes due while an example runs
WORK = [
    "claim",
    "look",
    "renew",
    "emit",
    "emit",
    "publish",
    "publish",
    "succeed",
    "fail",
    "cancelled",
    "stop",
    "stop",
    "crash",
]
TIME = [
    "wait",
    "wait",
    "late",
    "late",
    "expire",
    "expire",
    "dead",
    "tell",
    "archive",
    "archive",
    "archive stale",
    "sweep",
]


class LedgerMachine(Asking):
    # Working ...

    def take(self, lane: Lane, token: str, twice: bool) -> None:
        expected = self.model.claim(lane, token, OWNER)
        held = self.ledger.claim(lane, owner=OWNER, token=token)
        assert (held and (held.job_id, held.number)) == expected
        if held is None:
            return
        job = self.model.jobs[held.job_id]
        assert held.orders.model_dump() == job.orders
        assert (held.kind, held.spec, held.retry_of) == (job.kind, {"kind": job.kind}, job.retry_of)
        if twice:
            assert self.ledger.claim(lane, owner=OWNER, token=token) == held
        if all((each.job_id, each.number) != (held.job_id, held.number) for each in self.claims):  # it may have run on
            self.claims.append(held)

    def claim(self, lane, twice):
        token = self.name("token")
        self.tokens.append((lane, token))
        self.take(lane, token, twice)

    def hold(self, call, expected, twice):
        """Like `check`, where both may say that the claim no longer counts."""

        def or_lost(ask, refusal):
            try:
                return ask()
            except refusal:
                return "lost"

        self.check(lambda: or_lost(call, LeaseLost), lambda: or_lost(expected, LostError), twice)

    @rule(which=which, first=st.sampled_from(WORK), then=st.sampled_from(WORK), twice=again)
    @knows_jobs
    def work(self, which, first, then, twice):
        self.work_on(which, first, twice)
        self.the_ledger_holds_what_the_model_does()
        self.work_on(which, then, twice)

    def work_on(self, which, name, twice):
        """What a worker does; without a claim that counts, it mostly gets itself one."""
        idle = not any(self.counts(held) for held in self.claims)
        if name == "claim" or (idle and which % 4) or not self.claims:
            self.claim(self.a_lane(which), twice)
            return
        held = self.a_claim(which)
        if name in ("look", "renew"):
            self.look(held, name, twice)
        elif name == "emit":
            self.emit(held, which, twice)
        elif name == "publish":
            self.begin_publishing(held, twice)
        elif name in ("stop", "crash"):
            self.release(held, name == "crash", twice)
        else:
            to = {"succeed": State.SUCCEEDED, "fail": State.FAILED, "cancelled": State.CANCELLED}[name]
            self.settle(held, to, twice)

    def look(self, held, name, twice):
        def call():
            told = getattr(self.ledger, name)(held)
            return told.state, told.orders

        self.hold(call, lambda: getattr(self.model, name)(held.job_id, held.number), twice)

    def emit(self, held, which, twice):
        kind, back = ["progress", "checkpoint"][which % 2], which // 2 % 2
        claim = (held.job_id, held.number)
        newest = self.sequences[claim] = self.sequences.get(claim, 0) + 1 - back
        sequence, data = max(1, newest), {"step": newest}
        self.hold(
            lambda: self.ledger.emit(held, sequence, [(kind, data)], patch={"progress": data}),
            lambda: self.model.emit(*claim, sequence, kind, data),
            twice,
        )

    def begin_publishing(self, held, twice):
        self.hold(
            lambda: self.ledger.begin_publishing(held, {"artifact": "a"}),
            lambda: self.model.begin_publishing(held.job_id, held.number),
            twice,
        )

    def settle(self, held, to, twice):
        def call():
            if to is State.SUCCEEDED:
                return self.ledger.succeed(held, {"model": "m"})
            return self.ledger.fail(held, ERROR) if to is State.FAILED else self.ledger.cancelled(held)

        data = {State.SUCCEEDED: {"model": "m"}, State.FAILED: SHOWN, State.CANCELLED: {}}[to]
        self.hold(call, lambda: self.model.settle(held.job_id, held.number, to, data), twice)

    def release(self, held, crash, twice):
        how = "crashed" if crash else "stopped"
        self.hold(
            lambda: self.ledger.release(held, crash=ERROR if crash else None),
            lambda: self.model.release(held.job_id, held.number, how),
            twice,
        )
        self.wait_long(held.job_id)

    def wait_long(self, job_id: str) -> None:
        """A job that waits after a crash waits as long as it should; and from here on, for as long as we like."""
        job = self.model.jobs.get(job_id)
        if job and job.due and job.due > STARTED_LATER:
            queue = keys.due(LANES[job.kind], job.priority)
            if (job_id, job.due) not in self.waiting:
                due = self.redis.zscore(queue, job_id)
                wait = 2000 * 2 ** (job.since - 1)
                assert wait - 5_000 < due - self.ledger.clock() < wait + 5
                self.waiting.add((job_id, job.due))
                self.redis.zadd(queue, {job_id: self.began + FAR + (job.due - STARTED_LATER) / 100})

    # Time passes ...

    @rule(which=which, name=st.sampled_from(TIME), twice=again)
    @knows_jobs
    def pass_time(self, which, name, twice):
        if name == "wait":
            self.the_wait_after_a_crash_is_over(self.a_job(which, frozenset({State.QUEUED})))
        elif name == "late":
            self.the_lease_gets_late(self.a_job(which))
        elif name in ("expire", "dead") and self.claims:
            self.expire(self.a_claim(which), name == "dead", twice)
        elif name == "tell":
            self.the_webhook_is_told(self.a_job(which, TERMINAL))
        elif name.startswith("archive"):
            self.archived(self.a_job(which, TERMINAL), name.endswith("stale"), twice)
        elif name == "sweep" and which % 3 == 0:
            self.check(lambda: self.ledger.sweep(older_than_ms=-1000, limit=50), self.model.sweep, twice)

    def the_wait_after_a_crash_is_over(self, job_id):
        job = self.model.jobs.get(job_id)
        if job and job.due and job.due > STARTED_LATER:
            job.due = -self.model.tick()
            self.redis.zadd(keys.due(LANES[job.kind], job.priority), {job_id: job.due})

    def the_lease_gets_late(self, job_id):
        job = self.model.jobs.get(job_id)
        if job and job.state in HELD:
            job.late = True
            self.redis.zadd(keys.LEASES, {job_id: self.ledger.clock() - 1})

    def expire(self, held, dead, twice):
        job = Job(id=held.job_id, kind=held.kind, state=State.RUNNING, spec={}, created_at=0, claim=held.number)
        self.check(
            lambda: self.ledger.expire(job, owner_is_dead=dead),
            lambda: self.model.expire(held.job_id, held.number, dead=dead),
            twice,
        )
        self.wait_long(held.job_id)

    def the_webhook_is_told(self, job_id):
        if job_id in self.model.jobs:
            for member in self.redis.zrange(keys.DELIVERIES, 0, -1):
                if member.startswith(job_id + " "):
                    self.redis.zrem(keys.DELIVERIES, member)
            self.model.jobs[job_id].to_tell = 0

    def archived(self, job_id, stale, twice):
        job = self.model.jobs.get(job_id)
        if job is None or job.state in TERMINAL:
            retried_as = "an older record" if stale else job and job.retried_as
            self.check(
                lambda: self.ledger.archived(job_id, retried_as=retried_as),
                lambda: self.model.archived(job_id, retried_as),
                twice,
            )

    # What must hold after each step ...

    @invariant()
    def the_ledger_holds_what_the_model_does(self):
        found = Found(json.loads(self.dump()))
        jobs = self.model.jobs
        assert {name: found.record(name) for name in found.names("job")} == {
            name: expected_record(job) for name, job in jobs.items()
        }
        assert {name: found.events(name) for name in found.names("job")} == {
            name: job.events for name, job in jobs.items()
        }
        for state in State:
            assert found.index(keys.state(state)) == {name for name, job in jobs.items() if job.state is state}
        for lane in Lane:
            queues = [found.ordered(keys.due(lane, priority)) for priority in Priority]
            assert [name for queue in queues for name in queue] == self.model.queue(lane)
        assert found.index(keys.LEASES) == {name for name, job in jobs.items() if job.state in HELD}
        assert found.index(keys.ALL) == set(jobs)
        assert found.index(keys.ENDED) == {name for name, job in jobs.items() if job.state in TERMINAL}
        assert found.index(keys.UNARCHIVED) == {name for name, job in jobs.items() if not job.archived}
        told = [member.split(" ")[0] for member in found.ordered(keys.DELIVERIES)]
        assert {name: told.count(name) for name in {*told, *jobs}} == {name: job.to_tell for name, job in jobs.items()}
        assert found.strings("claim") == {
            job.token: f"{name} {job.claim}" for name, job in jobs.items() if job.state in HELD
        }
        assert found.strings("idempotency") == {key: " ".join(value) for key, value in self.model.keys.items()}
        assert not found.unknown()

    @invariant()
    def places_in_the_queue_are_those_of_the_model(self):
        waiting = {name: place for lane in Lane for place, name in enumerate(self.model.queue(lane), start=1)}
        assert self.ledger.positions(list(self.model.jobs)) == waiting
