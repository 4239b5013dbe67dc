"""Webhook deliveries of a job: how they went, and once more."""

from typing import Annotated

from fastapi import APIRouter, Path

from app.auth import needs
from app.deps import After, JobId, Limit, StateDep
from app.schemas.deliveries import DeliveriesBody
from app.schemas.problems import problem_responses
from jobs.deliveries import LOG_LENGTH
from store.keys import Scope

router = APIRouter(prefix="/v1/jobs/{job_id}/deliveries", tags=["jobs"], dependencies=needs(Scope.TRAIN))

DeliveryId = Annotated[
    str,
    Path(
        max_length=120,
        examples=["1769860880000-0"],
        description="`delivery` of the list, or the `webhook-id` that the receiver got.",
    ),
]


@router.get(
    "",
    responses=problem_responses(404, 503),
    operation_id="list_deliveries",
    summary="Look at a job's webhook deliveries",
)
async def deliveries(
    *, state: StateDep, job_id: JobId, limit: Limit = LOG_LENGTH, after: After = None
) -> DeliveriesBody:
    """The newest 100 attempts, newest first, and on every page what is still to be sent."""
    return DeliveriesBody.of(*await state.deliveries.look(job_id, limit=limit, after=after))


@router.post(
    "/{delivery}/redeliver",
    status_code=202,
    responses=problem_responses(404, 503),
    operation_id="redeliver",
    summary="Send a webhook again",
)
async def redeliver(state: StateDep, job_id: JobId, delivery: DeliveryId) -> DeliveriesBody:
    """Now, under the same `webhook-id`, with all its attempts. One that is just being sent is left alone."""
    await state.deliveries.repeat(job_id, delivery)
    return DeliveriesBody.of(*await state.deliveries.look(job_id))
