"""Uploads and what became of them."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from app.auth import needs
from app.dataset_requests import receive
from app.deps import After, DatasetId, IdempotencyKey, Limit, StateDep
from app.schemas.common import Page, problem_responses
from app.schemas.datasets import DatasetAccepted, DatasetBody, JobRef
from jobs.cursor import cursor
from store.keys import Scope

router = APIRouter(prefix="/v1/datasets", tags=["datasets"], dependencies=needs(Scope.TRAIN))

Name = Annotated[
    str | None,
    Query(description="What to call the dataset; default: like its file; several: its id."),
]
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/octet-stream": {
                "schema": {"type": "string", "format": "binary"},
                "example": "(the bytes of pets.zip)",
            },
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "name": {"type": "string"},
                        "file": {
                            "type": "string",
                            "format": "binary",
                            "description": "An archive; or, once for each file, what belongs together: IDX files.",
                        },
                    },
                    "required": ["file"],
                },
                "example": {"name": "pets", "file": "(the bytes of pets.zip)"},
            },
        },
    }
}
_UPLOAD = problem_responses(401, 403, 408, 409, 413, 422, 503)


@router.put("", status_code=202, responses=_UPLOAD, openapi_extra=_BODY, summary="Upload a dataset (curl -T)")
@router.post("", status_code=202, responses=_UPLOAD, openapi_extra=_BODY, summary="Upload a dataset")
async def upload(
    request: Request, response: Response, state: StateDep, key: IdempotencyKey, name: Name = None
) -> DatasetAccepted:
    """An archive of images (zip, tar), as the body or a form's file, or IDX files as the files of one form.

    On disk when the answer comes.
    """
    record = await receive(request, state.uploads, state.settings, name=name, key=key)
    response.headers["Location"] = f"/v1/datasets/{record.id}"
    return DatasetAccepted(id=record.id, name=record.name, bytes=record.bytes, job=JobRef(id=record.job))


@router.get("", responses=problem_responses(401, 403, 422), summary="List datasets")
async def datasets(state: StateDep, limit: Limit = 50, after: After = None) -> Page[DatasetBody]:
    """Newest first."""
    views, more = await state.datasets.page(limit=limit, after=after)
    last = cursor(views[-1].created_at, views[-1].id) if more else None
    return Page(data=[DatasetBody.of(view) for view in views], has_more=more, next=last)


@router.get("/{dataset_id}", responses=problem_responses(401, 403, 404), summary="Look at a dataset")
async def dataset(state: StateDep, dataset_id: DatasetId) -> DatasetBody:
    """Its status; once it is ready, its digest, classes, splits, image sizes, and the report of its import."""
    return DatasetBody.of(await state.datasets.get(dataset_id))


@router.delete(
    "/{dataset_id}",
    status_code=204,
    responses=problem_responses(401, 403, 404, 409, 503),
    summary="Delete a dataset",
)
async def delete(state: StateDep, dataset_id: DatasetId) -> Response:
    """Refused while a job uses it. Models that were trained on it stay."""
    await state.datasets.delete(dataset_id)
    return Response(status_code=204)
