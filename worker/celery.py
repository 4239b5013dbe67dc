"""The Celery worker: hears the doorbell and answers it. `python -m worker` starts it.

Two pool processes, one for each lane; a lane's slot is a lock that the kernel holds, so two bells never start two
trainings.
"""

import logging
import os
from pathlib import Path

from celery import Celery, bootsteps
from celery.signals import worker_shutting_down
from redis import RedisError

from jobs.doorbell import TASK, Doorbell
from jobs.ledger import Ledger
from jobs.model import Lane
from jobs.reconciler import INTERVAL_SECONDS, reconcile
from jobs.redis import connect, url
from store.layout import Layout
from store.settings import Settings
from worker.lane import slot
from worker.supervisor import answer

log = logging.getLogger(__name__)


def drain_flag(layout: Layout) -> Path:
    """The file that tells this worker's supervisors to stop; it lies there from SIGTERM until the worker has ended."""
    return layout.run / f"drain-{os.getpid()}"


def build(settings: Settings, layout: Layout) -> Celery:
    """The Celery app of one worker: its task, its reconciler, and how it drains."""
    redis_url = url(settings, layout)
    doorbell = Doorbell(redis_url)
    celery = doorbell.celery
    drain = drain_flag(layout)
    drain.unlink(missing_ok=True)

    @celery.task(name=TASK, ignore_result=True)  # type: ignore[untyped-decorator]  # Celery ships no types
    def answer_bell(lane_name: str) -> None:
        lane = Lane(lane_name)
        ledger = Ledger(connect(redis_url))
        with slot(layout, lane, settings.device) as held:
            if not held:
                return  # whoever holds it rings again when it is done
            try:
                more = answer(lane, ledger, layout, device=settings.device, drain=drain)
            except RedisError as error:
                log.warning("Redis is away; the reconciler will ring again", extra={"reason": str(error)})
                return
        if more and not drain.exists():
            doorbell.ring(lane)

    @worker_shutting_down.connect(weak=False)  # type: ignore[untyped-decorator]  # Celery ships no types
    def start_draining(**_: object) -> None:
        # Runs inside a signal handler: one system call, no logging.
        os.close(os.open(drain, os.O_CREAT | os.O_WRONLY, 0o600))

    celery.steps["worker"].add(_reconciler_step(redis_url, doorbell, layout))
    return celery


def _reconciler_step(redis_url: str, doorbell: Doorbell, layout: Layout) -> type:
    ledger = Ledger(connect(redis_url))

    class Reconciler(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery ships no types
        """On the worker's own timer and not in a thread: pool processes are forked, and a fork copies held locks."""

        requires = ("celery.worker.components:Timer",)

        def start(self, parent: object) -> None:
            parent.timer.call_repeatedly(INTERVAL_SECONDS, reconcile, (ledger, doorbell, layout))  # type: ignore[attr-defined]

    return Reconciler
