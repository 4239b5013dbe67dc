"""What a training can be asked with by name: recipes and architectures."""

from fastapi import APIRouter

from app.auth import needs
from app.deps import MAX_LIMIT, After, Limit
from app.schemas.choices import ArchitectureBody, RecipeBody, RecipeFieldBody
from app.schemas.common import Page
from app.schemas.problems import problem_responses
from app.services import choices
from store.keys import Scope

router = APIRouter(prefix="/v1", tags=["recipes"])


@router.get(
    "/recipes",
    responses=problem_responses(),
    dependencies=needs(Scope.PREDICT),
    operation_id="list_recipes",
    summary="List recipes",
)
async def recipes(limit: Limit = MAX_LIMIT, after: After = None) -> Page[RecipeBody]:
    """Every recipe with all its fields, by name."""
    found, following = choices.recipes(limit=limit, after=after)
    return Page.of([RecipeBody(name=name, fields=each.model_dump(mode="json")) for name, each in found], following)


@router.get(
    "/recipe-fields",
    responses=problem_responses(),
    dependencies=needs(Scope.PREDICT),
    operation_id="list_recipe_fields",
    summary="List the fields of recipes",
)
async def recipe_fields(limit: Limit = MAX_LIMIT, after: After = None) -> Page[RecipeFieldBody]:
    """Every field of a recipe, what it takes and what it means."""
    found, following = choices.recipe_fields(limit=limit, after=after)
    return Page.of([RecipeFieldBody.model_validate(each) for each in found], following)


@router.get(
    "/architectures",
    responses=problem_responses(),
    dependencies=needs(Scope.PREDICT),
    operation_id="list_architectures",
    summary="List networks",
)
async def architectures(limit: Limit = MAX_LIMIT, after: After = None) -> Page[ArchitectureBody]:
    """Every network that a recipe can name, with its source."""
    found, following = choices.networks(limit=limit, after=after)
    return Page.of([ArchitectureBody.of(each) for each in found], following)
