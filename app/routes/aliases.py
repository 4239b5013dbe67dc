"""Aliases of a model: names that move from version to version, with a canary and a shadow beside them."""

import re
from typing import Annotated

from fastapi import APIRouter, Header, Path, Request, Response

from app.auth import needs
from app.bodies import read_model
from app.conditional import is_known
from app.deps import IfNoneMatch, ModelName, StateDep
from app.problems import BadRequestError, wrong
from app.schemas.aliases import ALIAS_REQUEST_EXAMPLE, AliasBody, AliasesBody, AliasRequest
from app.schemas.common import NOT_MODIFIED, TAGGED, ref
from app.schemas.problems import problem_responses
from models.catalog import ANY
from store.keys import Scope

router = APIRouter(prefix="/v1/models/{name}/aliases", tags=["models"])

AliasName = Annotated[str, Path(max_length=80, examples=["production"], description="One of the model's aliases.")]
IfMatch = Annotated[
    str | None,
    Header(
        alias="If-Match",
        description="The aliases' ETag: change nothing where they are others by now. *: make none anew.",
    ),
]
Unless = Annotated[
    str | None,
    Header(
        alias="If-None-Match",
        description="*: change no alias that is there. An ETag: nothing while the aliases have it.",
    ),
]

_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": ref(AliasRequest), "example": ALIAS_REQUEST_EXAMPLE}},
    }
}
_READ = {**TAGGED, **NOT_MODIFIED, **problem_responses(404, 409)}
_ETAG = re.compile(r'(W/)?"([^"]*)"')


def expected(header: str | None) -> frozenset[str] | None:
    """The ETags of If-Match; None where it was not sent. A weak one never matches (RFC 9110, 13.1.1).

    Raises BadRequestError.
    """
    return None if header is None else _etags("If-Match", header, weak=False)


def unexpected(header: str | None) -> frozenset[str]:
    """The ETags of If-None-Match, weak ones too (RFC 9110, 13.1.2). Raises BadRequestError."""
    return frozenset() if header is None else _etags("If-None-Match", header, weak=True)


def _etags(name: str, header: str, *, weak: bool) -> frozenset[str]:
    if header.strip() == "*":
        return frozenset({ANY})
    found = [_ETAG.fullmatch(each.strip()) for each in header.split(",")]
    if None in found:
        detail = f"{name} holds ETags in quotation marks, or *"
        hint = "Send the ETag header as GET …/aliases gave it."
        raise BadRequestError("invalid_if_match", f"{detail}.", hint=hint, errors=wrong(f"/header/{name}", detail))
    return frozenset(each[2] for each in found if each is not None and (weak or not each[1]))


@router.get(
    "",
    response_model=AliasesBody,
    responses=_READ,
    dependencies=needs(Scope.PREDICT),
    operation_id="list_aliases",
    summary="Look at a model's aliases",
)
async def aliases(
    state: StateDep, response: Response, name: ModelName, if_none_match: IfNoneMatch = ""
) -> AliasesBody | Response:
    """Each with its canary, its shadow, and what it pointed to before. The ETag is of all of them."""
    found, etag = await state.aliases.all(name)
    headers = {"ETag": f'"{etag}"'}
    if is_known(etag, if_none_match):
        return Response(status_code=304, headers=headers)
    response.headers.update(headers)
    return AliasesBody.model_validate(found)


@router.get(
    "/{alias}",
    response_model=AliasBody,
    responses=_READ,
    dependencies=needs(Scope.PREDICT),
    operation_id="get_alias",
    summary="Look at an alias",
)
async def alias(
    state: StateDep, response: Response, name: ModelName, alias: AliasName, if_none_match: IfNoneMatch = ""
) -> AliasBody | Response:
    """As the list has it. The ETag is of all the model's aliases."""
    found, etag = await state.aliases.one(name, alias)
    headers = {"ETag": f'"{etag}"'}
    if is_known(etag, if_none_match):
        return Response(status_code=304, headers=headers)
    response.headers.update(headers)
    return AliasBody.model_validate(found)


@router.put(
    "/{alias}",
    responses={**TAGGED, **problem_responses(404, 409, 412)},
    dependencies=needs(Scope.TRAIN),
    openapi_extra=_BODY,
    operation_id="put_alias",
    summary="Point an alias to a version",
)
async def put(
    *,
    request: Request,
    response: Response,
    state: StateDep,
    name: ModelName,
    alias: AliasName,
    if_match: IfMatch = None,
    if_none_match: Unless = None,
) -> AliasBody:
    """What it served goes on serving until the new version is loaded and proven. A canary or
    shadow that is left out is removed.
    """
    known, others = expected(if_match), unexpected(if_none_match)
    asked = await read_model(request, AliasRequest)
    found, etag = await state.aliases.put(
        name,
        alias,
        version=asked.version,
        canary=asked.canary,
        shadow=asked.shadow,
        expected=known,
        unexpected=others,
    )
    response.headers["ETag"] = f'"{etag}"'
    return AliasBody.model_validate(found)


@router.post(
    "/{alias}:rollback",
    responses={**TAGGED, **problem_responses(400, 404, 409, 412)},
    dependencies=needs(Scope.TRAIN),
    operation_id="roll_back_alias",
    summary="Point an alias back",
)
async def roll_back(
    response: Response, state: StateDep, name: ModelName, alias: AliasName, if_match: IfMatch = None
) -> AliasBody:
    """To the version before this one, without canary or shadow. Again, it goes further back."""
    found, etag = await state.aliases.roll_back(name, alias, expected=expected(if_match))
    response.headers["ETag"] = f'"{etag}"'
    return AliasBody.model_validate(found)


@router.delete(
    "/{alias}",
    status_code=204,
    responses=problem_responses(400, 404, 409, 412),
    dependencies=needs(Scope.TRAIN),
    operation_id="delete_alias",
    summary="Delete an alias",
)
async def delete(state: StateDep, name: ModelName, alias: AliasName, if_match: IfMatch = None) -> Response:
    """A `production` that is deleted is the newest version again."""
    await state.aliases.delete(name, alias, expected=expected(if_match))
    return Response(status_code=204)
