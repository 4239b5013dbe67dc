"""Answers to questions for a plan: from what is known, else by a process of its own. Nothing of it touches the ledger.

Measuring needs the device's slot, which is taken where it is free and never waited for. A job that is due takes it
back: the process is ended at once, and the plan is answered with what it had said by then. So does a job of any lane
whose bell waits because plans have all of the pool's processes.
"""

import logging
import socket
import time
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from jobs.ledger import Ledger
from jobs.model import Lane
from jobs.plans import ANSWER_SECONDS, TAKE_SECONDS, Plans
from models.recipes import resolve
from store.datasets import Dataset
from store.version import code_version
from worker import plan_process
from worker.lane import heard, last_taken, lock_path, slot
from worker.plan_process import Said
from worker.planner.contention import MACHINE_BUSY
from worker.planner.request import PlanRequest, measured_key, plan_key
from worker.supervisor import Workplace

log = logging.getLogger(__name__)

FINISH_SECONDS = ANSWER_SECONDS - TAKE_SECONDS - 3.0  # for the process: whoever asked still waits when it is ended
PATIENCE_SECONDS = 3.0  # of a job whose lane is free: a process that is not busy answers its bell in milliseconds
DRAINED = "worker_stopping"
NEEDED = "device_needed"


@dataclass(frozen=True)
class _Keys:
    """Under which answers to the same question, and measurements of the same work, are known."""

    plan: str
    measured: str


def answer_plan(plan_id: str, ledger: Ledger, at: Workplace) -> bool:
    """Answer one question, where it still stands; True where the device's slot was held for it: whoever came for that
    meanwhile has to be rung for again. Raises RedisError.
    """
    plans = Plans(ledger.redis)
    heard(at.layout, Lane.CPU, at.device)  # whose bells wait in the same queue, perhaps behind many questions
    asked = None if at.drain.exists() else plans.take(plan_id)  # another worker may hear of it
    if asked is None:
        return False
    try:
        request = PlanRequest.model_validate(asked)
        keys = _keys(request, at)
    except (ValueError, OSError) as error:  # the server that asked is of another version, or the dataset is gone
        message = f"this worker cannot plan that: {error}"
        plans.refuse(plan_id, code="plan_refused", message=message, hint="Ask again.", passing=True)
        return False
    if (known := plans.recall(keys.plan)) is not None:
        plans.answer(plan_id, known)
        return False
    measured = None if request.curve else plans.recall(keys.measured)
    request = request.model_copy(update={"measured": measured})
    wanted = measured is None and not request.curve and not ledger.due(Lane.DEVICE)
    with slot(at.layout, Lane.DEVICE, at.device) if wanted else nullcontext() as held:
        said = _run(request, ledger, at, slot=held)
    _tell(plans, plan_id, said)
    _remember(plans, keys, said)
    return held is not None


def _keys(request: PlanRequest, at: Workplace) -> _Keys:
    """Raises RecipeError for an unknown recipe, and FileNotFoundError where the dataset is not here."""
    recipe = resolve(request.recipe, request.overrides)
    digest = Dataset.read(at.layout.dataset(request.dataset)).digest
    machine = f"{code_version()} {socket.gethostname()} {at.device}"
    return _Keys(
        plan=plan_key(request, recipe, digest, machine),
        measured=measured_key(recipe, digest, machine),
    )


def _run(request: PlanRequest, ledger: Ledger, at: Workplace, *, slot: int | None) -> Said:
    began = served = time.monotonic()

    def cut() -> str | None:
        nonlocal served
        if at.drain.exists():
            return DRAINED
        if slot is not None and ledger.due(Lane.DEVICE):
            return NEEDED
        if not _bell_waits(ledger, at):
            served = time.monotonic()
        elif time.monotonic() - served > PATIENCE_SECONDS:
            return NEEDED
        return "too_slow" if time.monotonic() - began > FINISH_SECONDS else None

    arguments = ["--data", str(at.layout.root), "--device", at.device, *(["--measure"] if slot is not None else [])]
    return plan_process.run(arguments, request.model_dump_json().encode(), slot=slot, cut=cut)


def _bell_waits(ledger: Ledger, at: Workplace) -> bool:
    """Whether a job is due in a lane that nobody works in."""
    return any(last_taken(lock_path(at.layout, lane, at.device)) is not None and ledger.due(lane) for lane in Lane)


def _tell(plans: Plans, plan_id: str, said: Said) -> None:
    if said.error is not None:
        told = {name: str(said.error[name]) for name in ("code", "message", "hint")}
        plans.refuse(plan_id, **told, passing=False)
    elif said.cut == DRAINED:
        plans.refuse(plan_id, code=DRAINED, message="the worker goes away", hint="Ask again.", passing=True)
    elif said.plan is not None:
        plans.answer(plan_id, _with_reason(said))
    elif said.cut == NEEDED:
        message = "a job needed the worker before the plan was ready"
        plans.refuse(plan_id, code="worker_busy", message=message, hint="Ask again later.", passing=True)
    elif said.cut is not None:
        message = f"the plan was not ready after {FINISH_SECONDS:g} s"
        hint = "Its machine is very busy; ask again later."
        plans.refuse(plan_id, code="plan_too_slow", message=message, hint=hint, passing=True)
    else:
        log.error("the planner's process died", extra={"code": said.code, "stderr": said.stderr})
        message = f"the process that plans died with status {said.code}"
        hint = "The worker's log has what it wrote last."
        plans.refuse(plan_id, code="planner_died", message=message, hint=hint, passing=True)


def _with_reason(said: Said) -> dict[str, Any]:
    """The plan; where the process ended before it was done, with the reason why figures are missing."""
    plan = said.plan or {}
    if plan.get("measured", {}).get("reason") != "not_finished":
        return plan
    if said.cut is None:
        log.error("the planner's process died while it measured", extra={"code": said.code, "stderr": said.stderr})
    return {**plan, "measured": {**plan["measured"], "reason": said.cut or "died"}}


def _remember(plans: Plans, keys: _Keys, said: Said) -> None:
    """What will be as true a while later."""
    if said.plan is not None and any(each["code"] == MACHINE_BUSY for each in said.plan.get("problems", ())):
        return
    if said.measured is not None:
        plans.remember(keys.measured, said.measured)
    if said.plan is None or said.cut is not None:
        return
    measured = said.plan.get("measured")
    if measured is None:
        plans.remember(keys.plan, said.plan)
    elif measured["reason"] is None:
        plans.remember(keys.plan, {**said.plan, "measured": {**measured, "cached": True}})
