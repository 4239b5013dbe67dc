"""The supervisor: claims a job, runs its process, keeps its lease, and says truthfully how it ended.

It holds no truth of its own. Killed at any moment, it takes the process with it, and the next claim goes on from the
last checkpoint. While Redis is away the process works on; the supervisor holds what it says and delivers it later.
"""

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from redis import RedisError

from jobs import archive, owner
from jobs.answers import Claim, JobNotFound, LeaseLost
from jobs.ledger import Ledger
from jobs.model import JobError, Lane, State
from models import checkpoint_files
from store.faults import point
from store.files import make_dir, remove_temporary, write_json
from store.layout import Layout
from worker.child import Child
from worker.lease import Lease
from worker.memory import OomWatch
from worker.orders import NAME as ORDERS
from worker.outcome import UNPUBLISHABLE, Death, Ending, Outcome, classify, own_failure
from worker.publish import is_public, publish
from worker.reporter import Reporter
from worker.stopping import Reason, Stopping

log = logging.getLogger(__name__)

TICK_SECONDS, SHORTEST_WAIT_SECONDS = 0.2, 0.01
RETRY_SECONDS = 1.0
CLAIM_TRIES = 3
PUBLISHING_TRIES = 5
LEAVING_SECONDS = 3.0  # for an outcome that Redis does not take while the worker goes away
FROZEN_SECONDS = 20.0  # a round that took longer was not ours alone: this process was stopped, or the machine was


@dataclass(frozen=True, kw_only=True)
class Workplace:
    """Where jobs run, and with how much patience.

    While the file `drain` is there, the worker goes away, and its jobs have `drain_seconds` for a last checkpoint.
    """

    layout: Layout
    device: str
    drain: Path
    stall_seconds: float
    drain_seconds: float


class Supervisor:
    """One claim, from its process's start to the job's next state. `slot` is the lane's lock, held."""

    def __init__(self, claim: Claim, ledger: Ledger, at: Workplace, *, slot: int) -> None:
        self._claim, self._ledger, self._at, self._slot = claim, ledger, at, slot
        self._folder = at.layout.job(claim.job_id)
        self._claim_dir = self._folder / f"claim-{claim.number}"
        self._lease = Lease(ledger, claim, self._claim_dir / ORDERS)
        self._reporter = Reporter(ledger, claim)
        self._stopping = Stopping(at.drain_seconds)
        self._oom = OomWatch()
        self._began = time.monotonic()
        self._result: dict[str, Any] | None = None
        self._error: JobError | None = None
        self._published: dict[str, Any] | None = None

    def run(self) -> None:
        try:
            try:
                point("supervisor.claimed")
                outcome = self._unfinished() or self._run_child()
                log.info("the job's process ended", extra={"job": self._claim.job_id, "ending": outcome.ending})
                self._settle(outcome)
            except LeaseLost:
                raise
            except Exception as error:
                # Something of ours broke, a full disk say: the job must not hang on it until its lease is past.
                log.exception("the supervisor failed", extra={"job": self._claim.job_id})
                self._settle(self._own_failure(error))
        except LeaseLost:
            log.warning("lost the lease", extra={"job": self._claim.job_id, "claim": self._claim.number})

    @property
    def patience(self) -> float:
        """Seconds for which the process may say nothing."""
        return self._at.stall_seconds

    def _unfinished(self) -> Outcome | None:
        """An earlier claim died while it published: no process is needed, the result is on disk.

        Where others can see a part of it, it must be brought to its end, however often that is tried. Otherwise a job
        whose claims die of it again and again fails like any other.
        """
        if self._claim.publishing is None:
            return None
        if self._claim.crashes_in_a_row >= PUBLISHING_TRIES and not is_public(self._claim, self._at.layout):
            return Outcome(Ending.FAILED, UNPUBLISHABLE)
        return Outcome(Ending.DONE, result=self._claim.publishing)

    def _own_failure(self, error: Exception) -> Outcome:
        outcome = own_failure(error)
        if outcome.ending is Ending.FAILED and is_public(self._claim, self._at.layout):
            return Outcome(Ending.CRASHED, outcome.error)  # not failed: what others can see must be brought to its end
        return outcome

    def _run_child(self) -> Outcome:
        try:
            self._prepare()
            child = Child(self._claim, self._at.layout, self._at.device, slot=self._slot)
            try:
                point("supervisor.started")
                self._watch(child)
            finally:
                code = child.kill()
        finally:
            self._sweep()
        self._take_lines(child, wait=0.0)
        death = Death(
            code=code,
            stderr=child.stderr_tail(),
            result=self._result,
            error=self._error,
            stopped=self._stopping.reason,
            oom=self._oom.struck(),
        )
        return classify(death)

    def _prepare(self) -> None:
        """Everything that the process finds in its folders when it starts."""
        make_dir(self._claim_dir)
        if not (self._folder / "spec.json").exists():
            write_json(self._folder / "spec.json", {"kind": self._claim.kind, **self._claim.spec})
        point("supervisor.spec_written")
        self._inherit()
        self._lease.hand_on(self._claim.orders)

    def _inherit(self) -> None:
        """The checkpoint of the job that this one tries again; where that never wrote one, of the job that it tried."""
        tried = self._claim.retry_of
        while tried is not None and not checkpoint_files.found(self._folder):
            checkpoint_files.inherit(self._at.layout.job(tried), self._folder)
            try:
                tried = archive.record(self._ledger, self._at.layout, tried).retry_of
            except JobNotFound:  # it was deleted
                return

    def _sweep(self) -> None:
        """Remove what this claim's and earlier ones' processes left half written; they are all dead."""
        for number in range(self._claim.number + 1):
            remove_temporary(self._folder / f"claim-{number}")
        remove_temporary(self._folder, of="spec.json")

    def _watch(self, child: Child) -> None:
        """Until the process has ended: deliver what it says, renew, and stop it when that is asked for."""
        round_began = time.monotonic()
        while True:
            ended = child.ended()
            wait = min(TICK_SECONDS, self._stopping.seconds_left, self._lease.seconds_to_next_look)
            self._take_lines(child, wait=0.0 if ended else max(wait, SHORTEST_WAIT_SECONDS))
            if ended:
                return
            now = time.monotonic()
            if now - round_began > FROZEN_SECONDS:
                child.forgive_silence()
            round_began = now
            if not (self._lease.away and self._stopping.reason):  # a stop must not wait for a Redis that is silent
                self._oom.note()
                self._lease.look()
                if not self._lease.away:
                    self._reporter.flush()
            self._stop_if_asked(child)
            if not self._stopping.seconds_left:
                child.kill()

    def _stop_if_asked(self, child: Child) -> None:
        reason = self._reason_to_stop(child)
        if reason is not None and self._stopping.begin(reason):
            log.info("stopping the job's process", extra={"job": self._claim.job_id, "reason": reason})
            if reason is Reason.STALLED:
                child.dump_stacks()
            else:
                child.terminate()

    def _reason_to_stop(self, child: Child) -> Reason | None:
        most, ran = self._claim.max_seconds, self._claim.ran_ms / 1000 + time.monotonic() - self._began
        if self._lease.state is State.CANCELLING:
            return Reason.CANCELLED
        if most is not None and ran >= most:
            return Reason.MAX_SECONDS
        if self._at.drain.exists():
            return Reason.DRAINED
        if self._lease.state is State.PAUSING:
            return Reason.PAUSED
        return Reason.STALLED if child.silent_seconds > self.patience else None

    def _take_lines(self, child: Child, *, wait: float) -> None:
        for kind, data in child.lines(wait=wait):
            if kind == "result":
                self._result = data
            elif kind == "error":
                self._error = JobError.model_validate(data)
            else:
                self._reporter.take(kind, data)

    def _settle(self, outcome: Outcome) -> None:
        """Bring the outcome into the ledger, however long Redis is away. Raises LeaseLost."""
        leaving: float | None = None
        while True:
            try:
                self._lease.renew_if_due()
                if self._reporter.flush(final=True):
                    self._finish(outcome)
                    return
            except RedisError as error:
                log.warning("Redis is away; the outcome waits", extra={"reason": str(error)})
            if self._at.drain.exists():
                leaving = leaving or time.monotonic() + LEAVING_SECONDS
                if time.monotonic() > leaving:
                    # Its lease will be past, and another claim goes on from what is on disk.
                    log.warning("left with an untold outcome", extra={"job": self._claim.job_id})
                    return
            time.sleep(RETRY_SECONDS)

    def _finish(self, outcome: Outcome) -> None:
        match outcome.ending:
            case Ending.DONE if outcome.result is not None:
                self._publish(outcome.result)
            case Ending.FAILED if outcome.error is not None:
                point("supervisor.before_finish")
                self._ledger.fail(self._claim, outcome.error)
                point("supervisor.finished")
            case _:
                point("supervisor.before_release")
                crash = outcome.error if outcome.ending is Ending.CRASHED else None
                self._ledger.release(self._claim, crash=crash)
                point("supervisor.released")

    def _publish(self, result: dict[str, Any]) -> None:
        point("supervisor.before_publishing")
        if not self._ledger.begin_publishing(self._claim, result):
            point("supervisor.before_finish")
            self._ledger.cancelled(self._claim)
            point("supervisor.finished")
            return
        point("supervisor.publishing")
        if self._published is None:
            with self._lease.kept():
                self._published = publish(self._claim, self._at.layout, result)
        point("supervisor.published")
        point("supervisor.before_finish")
        self._ledger.succeed(self._claim, self._published)
        point("supervisor.finished")


def answer(lane: Lane, ledger: Ledger, at: Workplace, *, slot: int) -> bool:
    """Answer one bell: run the lane's next due job, if there is one. True when a job was run."""
    if at.drain.exists():
        return False
    claim = _claim(lane, ledger)
    if claim is None:
        return False
    names = {"job": claim.job_id, "claim": claim.number, "kind": claim.kind, "traceparent": claim.traceparent}
    log.info("claimed a job", extra=names)
    Supervisor(claim, ledger, at, slot=slot).run()
    return True


def _claim(lane: Lane, ledger: Ledger) -> Claim | None:
    """A claim whose answer was lost is asked for again by its token: else the job would wait for its lease's end."""
    token = uuid4().hex
    for tries_left in reversed(range(CLAIM_TRIES)):
        try:
            return ledger.claim(lane, owner=owner.this_process(), token=token)
        except RedisError:
            if not tries_left:
                raise
            time.sleep(RETRY_SECONDS)
    return None
