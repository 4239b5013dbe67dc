"""The HTTP application: settings in, ASGI application out. Never imports torch."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio.to_thread
from fastapi import Depends, FastAPI
from fastapi_offline import FastAPIOffline

from app import background, handlers, openapi
from app.account import Account
from app.deps import known_query
from app.door import Door
from app.doorkeeper import Doorkeeper
from app.inference.client import Engines
from app.middleware import Envelope
from app.plain import PLAIN, Plain
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
from app.state import build
from app.tracing import telemetry
from app.turning_away import TURNING_AWAY, TurningAway
from store.settings import Settings
from store.version import code_version


def create_app(settings: Settings, *, engines: Engines | None = None) -> FastAPI:
    """One HTTP process's application. `engines`: another way to reach engines than through this machine's fleet."""
    state = build(settings, engines=engines)
    exported = telemetry(os.environ)
    account, doorkeeper = Account(state.metrics, exported), Doorkeeper(state)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Any]]:
        async with background.running(state):
            yield {
                DRAIN: state.drain,
                ACCOUNT: account,
                TURNING_AWAY: TurningAway(doorkeeper, account),
                PLAIN: Plain(state, doorkeeper, account),
            }
        if exported is not None:
            await anyio.to_thread.run_sync(exported.close)

    app = FastAPIOffline(  # /docs needs no network, and no script of others runs on this origin
        title="resnetd",
        version=code_version(),
        description=openapi.DESCRIPTION,
        openapi_tags=openapi.TAGS,
        lifespan=lifespan,
        redoc_url=None,
        static_url="/docs/static",
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
    openapi.install(app)
    return app
