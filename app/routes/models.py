"""Models, and what they are trained by: recipes and architectures."""

from typing import Annotated

from fastapi import APIRouter, Path, Request

from app.auth import needs
from app.bodies import read_model
from app.deps import After, Limit, ModelRef, StateDep
from app.schemas.common import Page, problem_responses
from app.schemas.models import (
    AliasBody,
    AliasRequest,
    ArchitectureBody,
    ModelBody,
    ModelSummary,
    RecipeBody,
)
from models.networks.registry import NETWORKS
from models.recipes import RECIPES
from store.keys import Scope

router = APIRouter(prefix="/v1", tags=["models"])

_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": AliasRequest.model_json_schema(), "example": {"version": 1}}},
    }
}
_READ = problem_responses(401, 403, 404)


@router.get("/models", responses=problem_responses(401, 403), dependencies=needs(Scope.PREDICT), summary="List models")
async def models(state: StateDep, limit: Limit = 50, after: After = None) -> Page[ModelSummary]:
    """By name."""
    found, more = await state.models.page(limit=limit, after=after)
    data = [ModelSummary.model_validate(each) for each in found]
    return Page(data=data, has_more=more, next=data[-1].name if more else None)


@router.get("/models/{name}", responses=_READ, dependencies=needs(Scope.PREDICT), summary="Look at a model")
async def model(state: StateDep, name: ModelRef) -> ModelBody:
    """Its versions, newest first, each with its network, classes, metrics, digest and lineage."""
    return ModelBody.model_validate(await state.models.get(name))


@router.put(
    "/models/{name}/aliases/{alias}",
    responses=problem_responses(401, 403, 404, 422),
    dependencies=needs(Scope.TRAIN),
    openapi_extra=_BODY,
    summary="Point an alias to a version",
)
async def set_alias(
    request: Request, state: StateDep, name: ModelRef, alias: Annotated[str, Path(examples=["production"])]
) -> AliasBody:
    """What the alias served goes on serving until the new version is loaded and proven."""
    asked = await read_model(request, AliasRequest)
    return AliasBody.model_validate(await state.models.set_alias(name, alias, asked.version))


@router.get(
    "/recipes", responses=problem_responses(401, 403), dependencies=needs(Scope.PREDICT), summary="List recipes"
)
async def recipes() -> Page[RecipeBody]:
    """Every recipe with all its fields."""
    data = [RecipeBody(name=name, fields=recipe.model_dump(mode="json")) for name, recipe in sorted(RECIPES.items())]
    return Page(data=data, has_more=False, next=None)


@router.get(
    "/architectures", responses=problem_responses(401, 403), dependencies=needs(Scope.PREDICT), summary="List networks"
)
async def architectures() -> Page[ArchitectureBody]:
    """Every network that a recipe can name, with its source."""
    data = [
        ArchitectureBody(
            name=entry.name,
            source=entry.source,
            channels=entry.input[0],
            image_size=entry.input[1],
            fixed_size=entry.fixed_size,
            parameters=entry.parameters,
            description=entry.description,
        )
        for entry in NETWORKS.values()
    ]
    return Page(data=data, has_more=False, next=None)
