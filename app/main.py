"""The HTTP application: settings in, ASGI application out. Never imports torch."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Depends, FastAPI
from pydantic.json_schema import models_json_schema

from app import handlers
from app.deps import known_query
from app.inference.client import Engines
from app.middleware import Envelope
from app.routes import artifacts, classification, datasets, deliveries, jobs, models, system
from app.schemas.common import Problem
from app.schemas.jobs import DESCRIBED
from app.state import build
from store.settings import Settings

_DESCRIPTION = "Trains residual networks and serves them. Errors are RFC 9457 problems with `code` and `hint`."


def create_app(settings: Settings, *, engines: Engines | None = None) -> FastAPI:
    """One HTTP process's application. `engines`: another way to reach engines than through this machine's fleet."""
    state = build(settings, engines=engines)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with state.running():
            yield

    app = FastAPI(
        title="resnetd",
        version=system.VERSION,
        description=_DESCRIPTION,
        lifespan=lifespan,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.edge = state
    app.add_middleware(Envelope, metrics=state.metrics)
    handlers.install(app)
    app.include_router(system.router)
    for room in (classification, datasets, jobs, artifacts, deliveries, models):
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
        _, defined = models_json_schema([(model, "validation") for model in DESCRIBED], ref_template=template)
        schemas.update(defined["$defs"])
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend the document
