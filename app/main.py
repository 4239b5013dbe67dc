"""The HTTP application: settings in, ASGI application out. Never imports torch."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio.to_thread
from fastapi import Depends, FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from app import background, handlers
from app.account import Account
from app.deps import known_query
from app.door import Door
from app.doorkeeper import Doorkeeper
from app.inference.client import Engines
from app.middleware import Envelope
from app.protocol import ACCOUNT, DRAIN
from app.routes import (
    aliases,
    artifacts,
    choices,
    classification,
    datasets,
    deliveries,
    explanation,
    inference_v2,
    jobs,
    models,
    plans,
    system,
)
from app.schemas import inference_v2 as schemas_v2
from app.schemas import jobs as schemas_of_jobs
from app.schemas.common import Problem
from app.state import build
from app.tracing import telemetry
from app.turning_away import TURNING_AWAY, TurningAway
from store.settings import Settings
from store.version import code_version

_DESCRIPTION = "Trains residual networks and serves them. Errors are RFC 9457 problems with `code` and `hint`."


def create_app(settings: Settings, *, engines: Engines | None = None) -> FastAPI:
    """One HTTP process's application. `engines`: another way to reach engines than through this machine's fleet."""
    state = build(settings, engines=engines)
    exported = telemetry(os.environ)
    account, doorkeeper = Account(state.metrics, exported), Doorkeeper(state)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
        async with background.running(state):
            yield {DRAIN: state.drain, ACCOUNT: account, TURNING_AWAY: TurningAway(doorkeeper, account)}
        if exported is not None:
            await anyio.to_thread.run_sync(exported.close)

    app = FastAPI(
        title="resnetd",
        version=code_version(),
        description=_DESCRIPTION,
        lifespan=lifespan,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.edge = state
    app.add_middleware(Door, state=state, doorkeeper=doorkeeper)
    app.add_middleware(Envelope, account=account)  # the last one is the outermost
    handlers.install(app)
    app.include_router(system.router)
    for room in (
        classification,
        explanation,
        inference_v2,
        datasets,
        jobs,
        plans,
        artifacts,
        deliveries,
        models,
        choices,
        aliases,
    ):
        app.include_router(room.router, dependencies=[Depends(known_query)])
    _describe_problems(app)
    return app


def _describe_problems(app: FastAPI) -> None:
    """Put the schemas into the OpenAPI document to which routes refer by name: the problem, and bodies read by hand."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        template = "#/components/schemas/{model}"
        _, defined = models_json_schema([(Problem, "serialization")], ref_template=template)
        schemas.update(defined["$defs"])
        by_hand: tuple[type[BaseModel], ...] = (*schemas_of_jobs.DESCRIBED, *schemas_v2.DESCRIBED)
        _, defined = models_json_schema([(model, "validation") for model in by_hand], ref_template=template)
        schemas.update(defined["$defs"])
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend the document
