"""The supervisor: claims a job, runs its process, keeps its lease, and says truthfully how it ended.

It holds no truth of its own. Killed at any moment, it takes the process with it, and the next claim goes on from the
last checkpoint. While Redis is away the process works on; the supervisor holds what it says and delivers it later.
"""

import logging
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

from redis import RedisError

from jobs import owner
from jobs.ledger import RENEW_SECONDS, Claim, LeaseLost, Ledger
from jobs.model import JobError, Lane, State
from store.files import write_json
from store.layout import Layout
from worker.child import Child, Deadline
from worker.outcome import Ending, Outcome, classify, own_failure
from worker.publish import publish
from worker.reporter import Reporter

log = logging.getLogger(__name__)

TICK_SECONDS = 0.2
LOOK_SECONDS = 0.5  # how often a cancellation is looked for between two renewals
CANCEL_GRACE_SECONDS = 2.0  # nothing of a cancelled job is kept, so it need not write a checkpoint
STOP_GRACE_SECONDS = 8.0  # less than `resnetd up` gives the worker
RETRY_SECONDS = 1.0


class Supervisor:
    """One claim, from its process's start to the job's next state."""

    def __init__(self, claim: Claim, ledger: Ledger, layout: Layout, *, device: str, drain: Path) -> None:
        self._claim, self._ledger, self._layout = claim, ledger, layout
        self._device, self._drain = device, drain
        self._reporter = Reporter(ledger, claim)
        self._result: dict[str, Any] | None = None
        self._error: JobError | None = None
        self._renewed = self._looked = time.monotonic()

    def run(self) -> None:
        try:
            try:
                outcome = self._run_child()
                log.info("the job's process ended", extra={"job": self._claim.job_id, "ending": outcome.ending})
                self._settle(outcome)
            except (OSError, RuntimeError, ValueError, LookupError) as error:
                # Something of ours broke, a full disk say: the job must not hang on it until its lease is past.
                log.exception("the supervisor failed", extra={"job": self._claim.job_id})
                self._settle(own_failure(error))
        except LeaseLost:
            log.warning("lost the lease", extra={"job": self._claim.job_id, "claim": self._claim.number})

    def _run_child(self) -> Outcome:
        spec = self._layout.job(self._claim.job_id) / "spec.json"
        if not spec.exists():
            spec.parent.mkdir(parents=True, exist_ok=True)
            write_json(spec, {"kind": self._claim.kind, **self._claim.spec})
        child = Child(self._claim, self._layout, self._device)
        try:
            self._watch(child)
        finally:
            code = child.kill()
        self._take_lines(child, wait=0.0)
        return classify(code, result=self._result, error=self._error, stderr=child.stderr_tail())

    def _watch(self, child: Child) -> None:
        """Until the process has ended: deliver what it says, renew, and stop it when that is asked for."""
        kill_at = Deadline()
        while True:
            ended = child.ended()
            self._take_lines(child, wait=0.0 if ended else TICK_SECONDS)
            self._reporter.flush()
            if ended:
                return
            if not kill_at.started and self._must_stop(kill_at):
                child.terminate()
            if kill_at.passed:
                child.kill()

    def _must_stop(self, kill_at: Deadline) -> bool:
        if self._state() is State.CANCELLING:
            kill_at.start(CANCEL_GRACE_SECONDS)
        elif self._drain.exists():
            kill_at.start(STOP_GRACE_SECONDS)
        return kill_at.started

    def _state(self) -> State:
        """The job's state, looked at twice a second; every few seconds the look renews the lease."""
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return State.RUNNING
        self._looked = now
        try:
            if now - self._renewed >= RENEW_SECONDS:
                state = self._ledger.renew(self._claim)
                self._renewed = now
                return state
            return self._ledger.state(self._claim.job_id)
        except RedisError as error:
            log.warning("Redis is away; the job goes on", extra={"reason": str(error)})
            return State.RUNNING

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
        while True:
            try:
                if self._reporter.flush(final=True):
                    self._finish(outcome)
                    return
            except RedisError as error:
                log.warning("Redis is away; the outcome waits", extra={"reason": str(error)})
            time.sleep(RETRY_SECONDS)

    def _finish(self, outcome: Outcome) -> None:
        match outcome.ending:
            case Ending.DONE if outcome.result is not None:
                if self._ledger.begin_publishing(self._claim):
                    self._ledger.succeed(self._claim, publish(self._claim, self._layout, outcome.result))
                else:
                    self._ledger.cancelled(self._claim)
            case Ending.FAILED if outcome.error is not None:
                self._ledger.fail(self._claim, outcome.error)
            case Ending.CRASHED:
                self._ledger.release(self._claim, crash=outcome.error)
            case _:
                self._ledger.release(self._claim, crash=None)


def answer(lane: Lane, ledger: Ledger, layout: Layout, *, device: str, drain: Path) -> bool:
    """Answer one bell: run the lane's next due job, if there is one. True when a job was run."""
    if drain.exists():
        return False
    claim = ledger.claim(lane, owner=owner.this_process(), token=uuid4().hex)
    if claim is None:
        return False
    log.info("claimed a job", extra={"job": claim.job_id, "claim": claim.number, "kind": claim.kind})
    Supervisor(claim, ledger, layout, device=device, drain=drain).run()
    return True
