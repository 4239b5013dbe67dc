"""The reconciler: compares the ledger with the world and mends what differs.

Every process that uses the ledger runs it. All it does is idempotent, and so may be done by several processes at once.
"""

import logging

from redis import RedisError

from jobs import owner
from jobs.archive import archive
from jobs.doorbell import Doorbell
from jobs.ledger import LEASE_MS, Ledger
from jobs.model import Lane
from store.layout import Layout

log = logging.getLogger(__name__)

INTERVAL_SECONDS = 2.0


def reconcile(ledger: Ledger, doorbell: Doorbell, layout: Layout) -> None:
    """One round: expire what is dead, ring for what is due, archive what has ended. Errors of Redis are logged."""
    try:
        _expire(ledger)
        for lane in Lane:
            if ledger.due(lane) and not doorbell.waiting(lane):
                doorbell.ring(lane)
        archive(ledger, layout)
    except (RedisError, OSError) as error:
        log.warning("the reconciler will try again", extra={"reason": str(error)})


def _expire(ledger: Ledger) -> None:
    leases = ledger.leases()
    if not leases:
        return
    # After an outage of Redis every lease is past, while the workers live and are about to renew.
    settled = float(ledger.redis.info("server")["uptime_in_seconds"]) * 1000 > LEASE_MS * 1.5
    now = ledger.clock()
    for job, until in leases:
        dead = job.owner is not None and owner.is_dead(job.owner)
        if (dead or (settled and until < now)) and ledger.expire(job, owner_is_dead=dead):
            log.warning("took a lease away", extra={"job": job.id, "claim": job.claim, "owner": job.owner})
