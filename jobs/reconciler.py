"""The reconciler: compares the ledger with the world and mends what differs.

Every process that uses the ledger runs it. All it does is idempotent, and so may be done by several processes at once.
"""

import logging

from redis import RedisError

from jobs import archive, owner
from jobs.doorbell import Doorbell
from jobs.ledger import LEASE_MS, Ledger
from jobs.model import Lane
from store import faults
from store.layout import Layout

log = logging.getLogger(__name__)

INTERVAL_SECONDS = 2.0
RETENTION_SECONDS = 7 * 86_400.0
# A worker whose lease is past, and to which Redis has come back, renews within this time: it renews every 5 s, looks
# whether it is time to every 0.5 s, and a busy machine takes its share.
GRACE_MS = 8_000
_SWEPT_AT_ONCE = 200


def reconcile(
    ledger: Ledger, doorbell: Doorbell, layout: Layout, *, retention_seconds: float = RETENTION_SECONDS
) -> None:
    """One round: expire what is dead, ring for what is due, bring to disk what is long or has ended, sweep what is old.

    Redis keeps ended jobs for `retention_seconds`. What goes wrong is logged: the next round tries again.
    """
    steps = (
        lambda: _expire(ledger),
        lambda: _ring(ledger, doorbell),
        lambda: _spill(ledger, layout),
        lambda: archive.archive(ledger, layout),
        lambda: ledger.sweep(older_than_ms=retention_seconds * 1000, limit=_SWEPT_AT_ONCE),
    )
    for step in steps:
        try:
            step()
        except RedisError as error:
            log.warning("the reconciler will try again", extra={"reason": str(error)})
            return
        except OSError as error:  # a full disk must not keep dead workers' jobs from running
            log.warning("the reconciler could not write", extra={"reason": str(error)})
        except Exception:
            log.exception("a step of the reconciler failed")


def _expire(ledger: Ledger) -> None:
    leases = ledger.leases()
    if not leases:
        return
    # After an outage of Redis every lease is past, while the workers live and are about to renew.
    # Less than nothing: its clock was set back to before its start.
    settled = not 0 <= float(ledger.redis.info("server")["uptime_in_seconds"]) * 1000 <= LEASE_MS * 1.5
    now = ledger.clock()
    for job, until in leases:
        dead = job.owner is not None and owner.is_dead(job.owner)
        late = not now <= until <= now + 2 * LEASE_MS
        if (dead or (settled and late)) and ledger.expire(job, owner_is_dead=dead, grace_ms=GRACE_MS):
            log.warning("took a lease away", extra={"job": job.id, "claim": job.claim, "owner": job.owner})
            faults.point("reconciler.expired")


def _ring(ledger: Ledger, doorbell: Doorbell) -> None:
    for lane in Lane:
        if ledger.due(lane) and not doorbell.waiting(lane) and doorbell.ring(lane):
            faults.point("reconciler.rung")


def _spill(ledger: Ledger, layout: Layout) -> None:
    for job_id in ledger.long():
        try:
            archive.spill(ledger, layout, job_id)
        except (OSError, ValueError) as error:  # the other jobs' histories must go on
            log.warning("a long history stays in Redis for now", extra={"job": job_id, "reason": repr(error)})
