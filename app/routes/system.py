"""What probes, scrapers and newcomers ask. Only /metrics has a scope."""

from typing import Any

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from app.auth import needs
from app.deps import StateDep
from app.responses import JsonResponse
from app.schemas.problems import problem_responses
from app.schemas.system import Discovery, Liveness, ReadinessBody
from store.keys import Scope
from store.version import code_version

router = APIRouter(tags=["system"])

_LINKS = {
    "classify": "/v1/classify",
    "explain": "/v1/explain",
    "preprocess": "/v1/preprocess",
    "datasets": "/v1/datasets",
    "jobs": "/v1/jobs",
    "models": "/v1/models",
    "recipes": "/v1/recipes",
    "recipe_fields": "/v1/recipe-fields",
    "architectures": "/v1/architectures",
    "open_inference_protocol": "/v2",
    "livez": "/livez",
    "readyz": "/readyz",
    "metrics": "/metrics",
    "openapi": "/openapi.json",
    "docs": "/docs",
}
_NOT_READY = {"status": "not_ready", "not_ready": ["engine"], "parts": {"engine": {"ready": False, "reason": "…"}}}
_READINESS: dict[int | str, dict[str, Any]] = {
    503: {
        "model": ReadinessBody,
        "description": "It cannot classify now.",
        "content": {"application/json": {"example": _NOT_READY}},
    },
    **problem_responses(),
}
_METRICS: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            "text/plain": {"schema": {"type": "string"}, "example": 'http_requests_total{route="/v1/classify"} 1.0\n'}
        }
    },
    **problem_responses(),
}


@router.get("/", responses=problem_responses(), operation_id="discover", summary="Where everything is")
async def discovery() -> Discovery:
    """The entry points by name, and the server's version."""
    return Discovery(name="resnetd", version=code_version(), links=_LINKS)


@router.get("/livez", responses=problem_responses(), operation_id="get_liveness", summary="Is this process alive")
async def livez() -> Liveness:
    """The process answers, and nothing else is looked at: `/readyz` tells of the engines, the ledger and the worker."""
    return Liveness(status="alive")


@router.get(
    "/readyz",
    response_model=ReadinessBody,
    responses=_READINESS,
    operation_id="get_readiness",
    summary="Can it classify, and what is missing",
)
async def readyz(state: StateDep) -> Response:
    """200 once an engine has really answered; each part that is not ready says why. The answer comes within two
    seconds, also while the engine hangs.
    """
    ready, body = await state.readiness.look()
    return JsonResponse(body, status_code=200 if ready else 503, headers={} if ready else {"Retry-After": "2"})


@router.get(
    "/metrics",
    response_class=Response,
    responses=_METRICS,
    dependencies=needs(Scope.METRICS),
    operation_id="get_metrics",
    summary="For Prometheus",
)
async def metrics(state: StateDep) -> Response:
    """Of all HTTP processes together, whichever is asked, in Prometheus' text format; jobs by state, too."""
    return Response(await state.figures.render(), media_type=CONTENT_TYPE_LATEST)
