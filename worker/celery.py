"""The Celery worker: hears the doorbell and answers it. `python -m worker` starts it.

Two pool processes, one for each lane; a lane's slot is a lock that the kernel holds, so two bells never start two
trainings.
"""

import logging
import os
import socket
from pathlib import Path

from celery import Celery, bootsteps
from celery.signals import worker_shutting_down
from redis import RedisError

from jobs.doorbell import TASK, Doorbell
from jobs.ledger import Ledger
from jobs.model import Lane
from jobs.plans import TASK as PLAN_TASK
from jobs.reconciler import INTERVAL_SECONDS, reconcile
from jobs.redis import connect, url
from store.faults import point
from store.layout import Layout
from store.settings import Settings
from worker.idle import IdleWatch
from worker.lane import slot
from worker.plans import answer_plan
from worker.supervisor import Workplace, answer

log = logging.getLogger(__name__)


def drain_flag(layout: Layout) -> Path:
    """The file that tells this worker's supervisors to stop; it lies there from SIGTERM until the worker has ended."""
    return layout.run / f"drain-{socket.gethostname()}-{os.getpid()}"  # containers may share the data directory


def build(settings: Settings, layout: Layout) -> Celery:
    """The Celery app of one worker: its task, its reconciler, and how it drains."""
    redis_url = url(settings, layout)
    doorbell = Doorbell(redis_url)
    celery = doorbell.celery
    drain = drain_flag(layout)
    drain.unlink(missing_ok=True)
    workplace = Workplace(
        layout=layout,
        device=settings.device,
        drain=drain,
        stall_seconds=settings.stall_seconds,
        drain_seconds=settings.drain_seconds,
    )

    @celery.task(name=TASK, ignore_result=True)  # type: ignore[untyped-decorator]  # Celery ships no types
    def answer_bell(lane_name: str) -> None:
        lane = Lane(lane_name)
        try:
            point("bell.heard")
            with slot(layout, lane, settings.device) as held:
                if held is None:
                    return  # whoever holds it rings again when it is done
                more = answer(lane, Ledger(connect(redis_url)), workplace, slot=held)
            if more and not drain.exists():
                doorbell.ring(lane)
        except RedisError as error:
            log.warning("Redis is away; the reconciler will ring again", extra={"reason": str(error)})
        except Exception:
            log.exception("the bell was not answered; the reconciler will ring again", extra={"lane": lane})

    @celery.task(name=PLAN_TASK, ignore_result=True)  # type: ignore[untyped-decorator]  # Celery ships no types
    def plan(plan_id: str) -> None:
        _answer_plan(plan_id, Ledger(connect(redis_url)), workplace, doorbell)

    @worker_shutting_down.connect(weak=False)  # type: ignore[untyped-decorator]  # Celery ships no types
    def start_draining(**_: object) -> None:
        # Runs inside a signal handler: one system call, no logging.
        os.close(os.open(drain, os.O_CREAT | os.O_WRONLY, 0o600))

    celery.steps["worker"].add(
        _timer_step(redis_url, doorbell, workplace, retention_seconds=settings.job_retention_seconds)
    )
    return celery


def _answer_plan(plan_id: str, ledger: Ledger, workplace: Workplace, doorbell: Doorbell) -> None:
    try:
        if answer_plan(plan_id, ledger, workplace):
            doorbell.ring(Lane.DEVICE)
    except RedisError as error:
        log.warning("Redis is away; the plan is not answered", extra={"reason": str(error)})
    except Exception:
        log.exception("the plan is not answered")


def _timer_step(redis_url: str, doorbell: Doorbell, workplace: Workplace, *, retention_seconds: float) -> type:
    ledger = Ledger(connect(redis_url))
    idle = IdleWatch(ledger, workplace)

    def tick() -> None:
        reconcile(ledger, doorbell, workplace.layout, retention_seconds=retention_seconds)
        idle.look()

    class Reconciler(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery ships no types
        """On the worker's own timer and not in a thread: pool processes are forked, and a fork copies held locks."""

        requires = ("celery.worker.components:Timer",)

        def start(self, parent: object) -> None:
            parent.timer.call_repeatedly(INTERVAL_SECONDS, tick)  # type: ignore[attr-defined]

    return Reconciler
