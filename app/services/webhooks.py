"""Webhooks: signed messages about jobs, sent by one task of every HTTP process.

The processes share the work: each takes what is due for a while (`jobs/deliveries.py`), and what a killed one had
taken is due again. A message comes at least once, with an id that stays the same over all its attempts.
"""

import asyncio
import logging
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from typing import Any, TypeVar

import anyio
import anyio.to_thread
import httpx
import orjson
from redis import RedisError

from app.services.webhook_sender import Sender, sign
from app.services.webhook_targets import Targets
from jobs.answers import JobNotFound
from jobs.deliveries import Deliveries, Delivery, Outcome
from jobs.ledger import Ledger
from jobs.model import Job, Webhook
from jobs.redis import connect
from store.faults import point

log = logging.getLogger(__name__)

#: Seconds between an attempt and the next; after the last the message is given up.
PAUSES = (5.0, 30.0, 120.0, 600.0, 3600.0, 21_600.0)
ATTEMPT_SECONDS = 10.0
LEASE_SECONDS = 30.0  # longer than an attempt and what is written about it
POLL_SECONDS = 0.5
STOP_SECONDS = 3.0  # for attempts under way when the process is told to stop
CONCURRENCY = 16
SLOW_SECONDS = 2.0  # a receiver that needs longer, or never answers, is slow until it answers sooner
SLOW_CONCURRENCY = 4  # at most so many messages to a slow one at a time: the others are for the others
_REDIS_THREADS = 4

T = TypeVar("T")


class Webhooks:
    """Sends what is due. `view`: a job as clients see it, without secrets, as JSON knows it."""

    def __init__(
        self,
        redis_url: str,
        targets: Targets,
        view: Callable[[Job], dict[str, Any]],
        *,
        pauses: Sequence[float] = PAUSES,
        attempt_seconds: float = ATTEMPT_SECONDS,
        lease_seconds: float = LEASE_SECONDS,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._redis = connect(redis_url)
        self._ledger = Ledger(self._redis)
        self._deliveries = Deliveries(self._redis)
        self._sender = Sender(targets, seconds=attempt_seconds, tls=tls)
        self._view = view
        self._pauses = pauses
        self._visible_ms = int(lease_seconds * 1000)
        self._limiter = anyio.CapacityLimiter(_REDIS_THREADS)
        self._sending: set[asyncio.Task[None]] = set()
        self._under_way: Counter[str] = Counter()  # attempts, by the receiver's origin
        self._slow: set[str] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The dispatcher lives as long as this context; attempts under way have a moment to end."""
        dispatcher = asyncio.create_task(self._dispatch(), name="webhooks")
        try:
            yield
        finally:
            dispatcher.cancel()
            with suppress(asyncio.CancelledError):
                await dispatcher
            if self._sending:
                _, late = await asyncio.wait(self._sending, timeout=STOP_SECONDS)
                for task in late:
                    task.cancel()
                await asyncio.gather(*late, return_exceptions=True)
            await self._sender.close()
            self._redis.close()

    async def _dispatch(self) -> None:
        away = False
        while True:
            try:
                found = await self._take()
                away = False
            except (RedisError, OSError) as error:
                if not away:
                    log.warning("webhooks wait for Redis", extra={"reason": str(error)})
                found, away = [], True
            for delivery in found:
                task = asyncio.create_task(self._deliver(delivery))
                self._sending.add(task)
                task.add_done_callback(self._sending.discard)
            if len(self._sending) >= CONCURRENCY:
                await asyncio.wait(self._sending, return_when=asyncio.FIRST_COMPLETED)
            elif not found:
                await asyncio.sleep(POLL_SECONDS)

    async def _take(self) -> list[Delivery]:
        limit = CONCURRENCY - len(self._sending)
        return await self._ask(lambda: self._deliveries.take(limit=limit, visible_ms=self._visible_ms))

    async def _ask(self, call: Callable[[], T]) -> T:
        return await anyio.to_thread.run_sync(call, limiter=self._limiter, abandon_on_cancel=True)

    async def _deliver(self, delivery: Delivery) -> None:
        """One attempt, written down. Whatever stands in the way of that, the delivery is due again by itself."""
        try:
            job = await self._ask(lambda: self._ledger.get(delivery.job_id))
            if job.webhook is None:
                return
            receiver = receiver_of(job.webhook.url)
            if receiver in self._slow and self._under_way[receiver] >= SLOW_CONCURRENCY:
                return  # due again after its lease
            point("webhook.taken")
            began = time.monotonic()
            headers, body = self._message(delivery, job, job.webhook)
            with self._counted(receiver):
                status, error = await self._sender.post(job.webhook.url, headers, body)
            point("webhook.sent")
            seconds = time.monotonic() - began
            (self._slow.add if status is None or seconds > SLOW_SECONDS else self._slow.discard)(receiver)
            await self._note(delivery, status=status, error=error, ms=round(seconds * 1000))
            point("webhook.noted")
        except JobNotFound:
            return  # deleted meanwhile, and its deliveries with it
        except Exception as error:
            log.exception("a webhook is tried again later", extra={"job": delivery.job_id, "reason": repr(error)})

    @contextmanager
    def _counted(self, receiver: str) -> Iterator[None]:
        self._under_way[receiver] += 1
        try:
            yield
        finally:
            self._under_way[receiver] -= 1
            if not self._under_way[receiver]:
                del self._under_way[receiver]

    def _message(self, delivery: Delivery, job: Job, webhook: Webhook) -> tuple[dict[str, str], bytes]:
        """Headers and body. The job is told as it is now: a state that was not final may have passed."""
        happened = datetime.fromtimestamp(int(delivery.event_id.partition("-")[0]) / 1000, UTC)
        content = {"type": f"job.{delivery.state}", "timestamp": happened, "data": self._view(job)}
        body, now = orjson.dumps(content, option=orjson.OPT_UTC_Z), int(time.time())
        headers = {
            "content-type": "application/json",
            "user-agent": "resnetd",
            "webhook-id": delivery.message_id,
            "webhook-timestamp": str(now),
        }
        if webhook.secret:
            headers["webhook-signature"] = sign(
                webhook.secret, message_id=delivery.message_id, timestamp=now, body=body
            )
        return headers, body

    async def _note(self, delivery: Delivery, *, status: int | None, error: str | None, ms: int) -> None:
        outcome = judge(status, attempts=delivery.attempts, most=len(self._pauses) + 1)
        facts = {"job": delivery.job_id, "delivery": delivery.event_id, "outcome": outcome, "status": status}
        log.info("webhook", extra={**facts, "reason": error})
        if outcome is Outcome.RETRY:
            pause_ms = int(self._pauses[delivery.attempts] * 1000)
            await self._ask(
                lambda: self._deliveries.again(delivery, pause_ms=pause_ms, status=status, error=error, ms=ms)
            )
        else:
            await self._ask(lambda: self._deliveries.done(delivery, outcome, status=status, error=error, ms=ms))


def receiver_of(url: str) -> str:
    """Scheme, host and port as the URL has them."""
    return "/".join(url.split("/", 3)[:3]).lower()


def judge(status: int | None, *, attempts: int, most: int) -> Outcome:
    """What an answer means after `attempts` earlier ones. A redirect is no delivery: it is not followed."""
    if status is not None and httpx.codes.is_success(status):
        return Outcome.DELIVERED
    if status == httpx.codes.GONE:
        return Outcome.GONE
    return Outcome.RETRY if attempts + 1 < most else Outcome.GIVEN_UP
