"""The part of the random test that asks: submissions, verbs, retries, and all of them again."""

from typing import Any

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from ledger_dump import DUMP
from ledger_model import Model
from redis import Redis

from jobs.answers import Answer, Claim, IdempotencyConflict, JobNotFound, RetryRefused
from jobs.ledger import Ledger
from jobs.model import HELD, TERMINAL, Kind, Lane, Priority, State, Webhook

OWNER = "somebody"

again = st.booleans()  # whether the same call reaches Redis twice
kinds = st.sampled_from([Kind.TRAIN, Kind.TRAIN, Kind.TRAIN, Kind.IMPORT, Kind.EVALUATE, Kind.EXPORT, Kind.ADOPT])
priorities = st.sampled_from(Priority)
wanted_states = st.sampled_from([(), (State.SUCCEEDED, State.FAILED, State.CANCELLED), (State.RUNNING, State.PAUSED)])
values = st.sampled_from([0.1, 0.30000000000000004, 1e-7, 12, None])
changes = st.dictionaries(st.sampled_from(["lr", "epochs", "patience"]), values, max_size=2)


VERBS = ["cancel", "pause", "pause", "resume", "finish", "finish", "checkpoint", "patch", "delete", "retry", "retry"]
PAUSED = frozenset({State.PAUSED, State.PAUSING})
LIKELY = {"resume": PAUSED, "finish": PAUSED, "delete": TERMINAL, "retry": TERMINAL}

which = st.integers(0, 999)  # picks one of many
knows_jobs = precondition(lambda self: self.jobs)


class Asking(RuleBasedStateMachine):
    """What people ask; and how the machine picks whom."""

    redis: Redis  # may do everything
    own: Redis  # may do what resnetd may

    def __init__(self) -> None:
        super().__init__()
        self.redis.flushdb()
        self.ledger = Ledger(self.own)
        self.model = Model()
        self.dump = self.redis.register_script(DUMP)
        self.names = 0
        self.sequences: dict[tuple[str, int], int] = {}
        self.jobs: list[str] = []
        self.claims: list[Claim] = []
        self.past: list[tuple[str, str, str, dict[str, Any]]] = []
        self.tokens: list[tuple[Lane, str]] = []
        self.began = self.ledger.clock()
        self.waiting: set[tuple[str, int]] = set()  # (job, its due time in the model): waits until the machine says so

    def name(self, kind: str) -> str:
        self.names += 1
        return f"{kind}_{self.names}"

    def a_job(self, which: int, likely: frozenset[State] = HELD) -> str:
        """Mostly one in a `likely` state, or one that has not ended; also any other, removed ones too."""
        among = [name for name, job in self.model.jobs.items() if job.state in likely] if which % 4 > 1 else []
        among = among or (self.live() if which % 4 else []) or self.jobs
        return among[which // 4 % len(among)]

    def live(self) -> list[str]:
        return [name for name, job in self.model.jobs.items() if job.state not in TERMINAL]

    def a_claim(self, which: int) -> Claim:
        """Mostly one that counts; also stale ones."""
        current = [held for held in self.claims if self.counts(held)]
        among = current if current and which % 3 else self.claims
        return among[which // 3 % len(among)]

    def a_lane(self, which: int) -> Lane:
        """Mostly one with work; and if there is none, somebody brings some."""
        if which % 5 == 0:
            return list(Lane)[which // 5 % len(Lane)]
        queues = {lane: self.model.queue(lane) for lane in Lane}
        lanes = [lane for lane in Lane if queues[lane]]
        if not lanes:
            self.submit(kind=Kind.TRAIN, priority=Priority.LOW, wanted=(), key=None, digest="d1", twice=False)
            return Lane.DEVICE
        lane = lanes[which // 5 % len(lanes)]
        self.the_wait_after_a_crash_is_over(queues[lane][0])
        return lane

    def counts(self, held: Claim) -> bool:
        job = self.model.jobs.get(held.job_id)
        return job is not None and job.state in HELD and job.claim == held.number

    def check(self, call, expected, twice):
        """The ledger answers what the model does, also when the call reaches it a second time."""
        for _ in range(1 + twice):
            assert call() == expected()

    # Asking ...

    @initialize(kinds=st.lists(kinds, min_size=2, max_size=2), wanted=wanted_states)
    def begin(self, kinds, wanted):
        for kind in kinds:
            self.submit(kind=kind, priority=Priority.NORMAL, wanted=wanted, key=None, digest="d1", twice=False)

    @precondition(lambda self: len(self.live()) < 3)  # few, so that much happens to each
    @rule(
        kind=kinds,
        priority=priorities,
        wanted=wanted_states,
        key=st.sampled_from([None, None, "k1", "k2"]),
        digest=st.sampled_from(["d1", "d2"]),
        twice=again,
    )
    def submit(self, *, kind, priority, wanted, key, digest, twice):
        job_id = self.name("job")
        webhook = Webhook(url="https://example.org/", events=wanted) if wanted else None

        def call():
            idempotency = (key, digest) if key else None
            arguments = {"job_id": job_id, "idempotency": idempotency, "priority": priority, "webhook": webhook}
            try:
                done = self.ledger.submit(kind, {"kind": kind}, **arguments)
            except IdempotencyConflict:
                return "conflict"
            return done.job_id, "created" if done.created else "known"

        def expected():
            found = self.model.submit(job_id, kind, priority, frozenset(wanted), key=key, digest=digest)
            return found[1] if found[1] == "conflict" else found

        self.check(call, expected, twice)
        self.jobs.append(job_id)

    def retry(self, job_id, twice):
        new_id = self.name("job")

        def call():
            try:
                done = self.ledger.retry(job_id, new_id=new_id)
            except JobNotFound:
                return None
            except RetryRefused as refused:
                return refused.state, "refused"
            return done.job_id, "created" if done.created else "known"

        self.check(call, lambda: self.model.retry(job_id, new_id), twice)
        self.jobs.append(new_id)

    def verb(self, name: str, job_id: str, token: str, twice: bool, **arguments: Any) -> None:
        def call() -> Answer | None:
            try:
                return getattr(self.ledger, name)(job_id, token=token, **arguments)
            except JobNotFound:
                return None

        self.check(call, lambda: self.model.verb(name, job_id, token, **arguments), twice)
        self.past.append((name, job_id, token, arguments))

    @rule(which=which, name=st.sampled_from(VERBS), changed=changes, priority=st.none() | priorities, twice=again)
    @knows_jobs
    def ask(self, *, which, name, changed, priority, twice):
        job_id = self.a_job(which, LIKELY.get(name, HELD))
        if name == "retry":
            self.retry(job_id, twice)
        else:
            arguments = {"settings": changed, "priority": priority} if name == "patch" else {}
            self.verb(name, job_id, self.name("token"), twice, **arguments)

    @rule(which=which, claims=st.booleans())
    @precondition(lambda self: self.past and self.tokens)
    def repeat_what_was_said_long_ago(self, which, claims):
        if claims:
            lane, token = self.tokens[which % len(self.tokens)]
            self.take(lane, token, False)
            return
        name, job_id, token, arguments = self.past[which % len(self.past)]
        known = (name, job_id, token) in self.model.answers
        before = self.model.snapshot()
        self.verb(name, job_id, token, False, **arguments)
        assert not known or self.model.snapshot() == before
