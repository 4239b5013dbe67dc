"""Plans: what a training would be, before anybody queues it."""

from typing import Any, Literal

from fastapi import APIRouter, Request, Response

from app.accept import prefer
from app.auth import needs
from app.bodies import read_union
from app.deps import Accept, StateDep
from app.disconnect import unless_gone
from app.problems import NotAcceptableError
from app.schemas.jobs import TrainRequest
from app.schemas.plans import PLAN_REQUEST, PlanBody
from app.schemas.problems import problem_responses
from jobs.model import Kind
from store.keys import Scope

router = APIRouter(prefix="/v1/jobs/plan", tags=["jobs"], dependencies=needs(Scope.TRAIN))

SVG = "image/svg+xml"
_OFFERED: dict[str, Literal["plan", "curve"]] = {"application/json": "plan", SVG: "curve"}
_ELSEWHERE = dict.fromkeys(map(str, Kind), "Only trainings are planned.")
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "model": PlanBody,
        "content": {SVG: {"schema": {"type": "string"}, "example": '<svg xmlns="http://www.w3.org/2000/svg"/>'}},
    },
    **problem_responses(406, 409, 503),
}


@router.post(
    "", responses=_RESPONSES, openapi_extra=PLAN_REQUEST, operation_id="plan_training", summary="Plan a training"
)
async def plan(request: Request, state: StateDep, accept: Accept = "*/*") -> Response:
    """The body is a training's submission; nothing is queued. Where the worker's device is free, a few real steps are
    taken on it, for ten seconds at most; a job that comes meanwhile does not wait for them. As `image/svg+xml`: the
    learning rate over the training, and nothing else.
    """
    rendering = prefer(accept, _OFFERED)
    if rendering is None:
        raise NotAcceptableError("A plan comes in two media types.", hint=f"application/json or {SVG}")
    asked = await read_union(request, {Kind.TRAIN: TrainRequest}, tag="kind", hints=_ELSEWHERE)
    if rendering == "curve":
        curve = await unless_gone(request, state.planning.curve(asked.spec()))
        return Response(curve, media_type=SVG, headers={"Vary": "Accept"})
    made = await unless_gone(request, state.planning.plan(asked.spec(), max_seconds=asked.max_seconds))
    found = PlanBody.model_validate(made)
    body = found.model_dump_json(by_alias=True)
    return Response(body, media_type="application/json", headers={"Vary": "Accept"})
