"""What became of a job's webhooks, and sending one again."""

from collections.abc import Sequence

from app.problems import NotFoundError
from app.services.jobs import Jobs
from app.services.ledger import AsyncLedger
from app.services.pages import part
from jobs.cursor import cursor, place
from jobs.deliveries import LOG_LENGTH, Attempt, Deliveries, Pending


class DeliveryLogs:
    def __init__(self, ledger: AsyncLedger, jobs: Jobs) -> None:
        self._ledger = ledger
        self._jobs = jobs

    async def look(
        self, job_id: str, *, limit: int = LOG_LENGTH, after: str | None = None
    ) -> tuple[Sequence[Attempt], list[Pending], str | None]:
        """The newest attempts, newest first, at most `limit` from behind the place `after`; what is still to be sent;
        and the `after` of the next part, None at the end. Raises NotFoundError, InvalidError, UnavailableError.
        """
        await self._jobs.get(job_id)
        attempts, pending = await self._ledger.read(
            lambda ledger: (Deliveries(ledger.redis).log(job_id), Deliveries(ledger.redis).pending(job_id))
        )
        shown, following = part(
            attempts,
            name=lambda each: cursor(each.at, each.delivery),
            limit=limit,
            after=after,
            left=lambda name: place(name) is not None,  # some attempts later it is gone, and all before it
        )
        return shown, pending, following

    async def repeat(self, job_id: str, delivery: str) -> None:
        """Send a message again, under its id, with all its attempts. Raises NotFoundError, UnavailableError."""
        await self._jobs.get(job_id)
        event_id = delivery.removeprefix(f"{job_id}.")  # a receiver knows the message's whole id
        if await self._ledger.write(lambda ledger: Deliveries(ledger.redis).repeat(job_id, event_id)) == "unknown":
            raise NotFoundError(
                "delivery_not_found",
                f"Job {job_id} has no delivery {delivery[:80]!r}.",
                hint=f"GET /v1/jobs/{job_id}/deliveries lists those that Redis still has.",
            )
