"""The supervisor's contact with the ledger while the job's process runs: renew, hear what is asked, hand it on."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

from redis import RedisError

from jobs.answers import Claim, LeaseLost
from jobs.ledger import RENEW_SECONDS, Ledger
from jobs.model import Held, Orders, State
from store.faults import point
from store.files import write_atomic

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.5


class Lease:
    """A claim as it is kept: looked at twice a second, renewed every few seconds.

    `state` is the job's state as last told; `away` says that Redis could not be reached then.
    """

    def __init__(self, ledger: Ledger, claim: Claim, orders_file: Path) -> None:
        self._ledger, self._claim, self._orders_file = ledger, claim, orders_file
        self._renewed = time.monotonic()  # the claim began with a fresh lease
        self._next_look = 0.0
        self._handed_on: int | None = None
        self.state, self.away = State.RUNNING, False

    @property
    def seconds_to_next_look(self) -> float:
        return max(0.0, self._next_look - time.monotonic())

    def hand_on(self, orders: Orders) -> None:
        """Put the orders where the job's process looks for them."""
        write_atomic(self._orders_file, orders.model_dump_json().encode())
        self._handed_on = orders.version
        point("supervisor.orders_written")

    def look(self) -> None:
        """Look whether anything is asked, when it is time to. Raises LeaseLost."""
        if self.seconds_to_next_look:
            return
        try:
            held = self._look_or_renew()
            self.state = held.state
            if held.orders != self._handed_on:
                self.hand_on(self._ledger.orders(self._claim))
            self._is_away(None)
        except RedisError as error:
            self._is_away(error)
        except OSError as error:  # the next look tries again; a training need not end for it
            log.warning("orders could not be written", extra={"job": self._claim.job_id, "reason": str(error)})
        self._next_look = time.monotonic() + LOOK_SECONDS

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Renew meanwhile, in a thread: large files take their time on a slow disk, and nobody looks after the lease.

        A lease that is lost all the same is noticed by whoever writes to the ledger next.
        """
        over = Event()

        def keep() -> None:
            while not over.wait(RENEW_SECONDS):
                try:
                    self._ledger.renew(self._claim)
                except LeaseLost:
                    return
                except RedisError as error:
                    log.warning("could not renew", extra={"job": self._claim.job_id, "reason": str(error)})

        keeper = Thread(target=keep, name="lease", daemon=True)
        keeper.start()
        try:
            yield
        finally:
            over.set()
            keeper.join()

    def renew_if_due(self) -> None:
        """Raises LeaseLost, RedisError."""
        if time.monotonic() - self._renewed >= RENEW_SECONDS:
            self._renew()

    def _look_or_renew(self) -> Held:
        if time.monotonic() - self._renewed >= RENEW_SECONDS:
            return self._renew()
        return self._ledger.look(self._claim)

    def _renew(self) -> Held:
        point("supervisor.before_renew")
        held = self._ledger.renew(self._claim)
        self._renewed = time.monotonic()
        point("supervisor.renewed")
        return held

    def _is_away(self, error: RedisError | None) -> None:
        if error is not None and not self.away:
            log.warning("Redis is away; the job goes on", extra={"job": self._claim.job_id, "reason": str(error)})
        if error is None and self.away:
            log.info("Redis is back", extra={"job": self._claim.job_id})
        self.away = error is not None
