"""Uploads and what became of them."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from app.auth import needs
from app.dataset_requests import receive
from app.deps import After, DatasetId, DatasetStatuses, IdempotencyKey, Limit, StateDep, UploadTerms
from app.schemas.common import LOCATED, Page
from app.schemas.datasets import DatasetAccepted, DatasetBody, JobRef
from app.schemas.jobs import TERMS
from app.schemas.problems import problem_responses
from app.services.dataset_views import UploadRecord
from jobs.cursor import cursor
from store.keys import Scope

router = APIRouter(prefix="/v1/datasets", tags=["datasets"], dependencies=needs(Scope.TRAIN))

Name = Annotated[
    str | None,
    Query(
        description="What to call the dataset; default: like its file, which has a name in a form and behind "
        "/v1/datasets/; else by its id."
    ),
]
Filename = Annotated[
    str,
    Path(
        alias="dataset_id",  # one address has one name for what stands there
        max_length=255,
        examples=["pets.zip"],
        description="The file's name, as `curl -T pets.zip …/v1/datasets/` puts it behind the address.",
    ),
]
Called = Annotated[str | None, Query(max_length=100, description="Only those that are called so.")]
Wait = Annotated[
    float,
    Query(ge=0, le=60, description="Answer as soon as its import has ended, at the latest after so many seconds."),
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
                        **TERMS,
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
_UPLOAD = {**LOCATED, **problem_responses(409, 503, 507)}


@router.put(
    "",
    status_code=202,
    responses=_UPLOAD,
    openapi_extra=_BODY,
    operation_id="upload_dataset_put",
    summary="Upload a dataset (curl -T)",
)
@router.post(
    "",
    status_code=202,
    responses=_UPLOAD,
    openapi_extra=_BODY,
    operation_id="upload_dataset",
    summary="Upload a dataset",
)
async def upload(
    *,
    request: Request,
    response: Response,
    state: StateDep,
    key: IdempotencyKey,
    terms: UploadTerms,
    name: Name = None,
) -> DatasetAccepted:
    """An archive of images (zip, tar), as the body or a form's file, or IDX files as the files of one form.

    On disk when the answer comes.
    """
    record = await receive(request, state.uploads, state.settings, name=name, terms=terms, key=key)
    return _accepted(record, response)


@router.put(
    "/{dataset_id}",
    status_code=202,
    responses=_UPLOAD,
    openapi_extra=_BODY,
    operation_id="upload_dataset_file",
    summary="Upload a dataset by its file's name (curl -T)",
)
async def upload_file(
    *,
    request: Request,
    response: Response,
    state: StateDep,
    key: IdempotencyKey,
    terms: UploadTerms,
    filename: Filename,
    name: Name = None,
) -> DatasetAccepted:
    """Like /v1/datasets: a new dataset, called like the file up to the first dot unless `name` calls it otherwise."""
    record = await receive(request, state.uploads, state.settings, name=name, terms=terms, key=key, filename=filename)
    return _accepted(record, response)


def _accepted(record: UploadRecord, response: Response) -> DatasetAccepted:
    response.headers["Location"] = f"/v1/datasets/{record.id}"
    return DatasetAccepted(id=record.id, name=record.name, bytes=record.bytes, job=JobRef(id=record.job))


@router.get("", responses=problem_responses(), operation_id="list_datasets", summary="List datasets")
async def datasets(
    *, state: StateDep, statuses: DatasetStatuses, name: Called = None, limit: Limit = 50, after: After = None
) -> Page[DatasetBody]:
    """Newest first, each without the lists of its report."""
    views, more = await state.datasets.page(limit=limit, after=after, name=name, statuses=statuses)
    last = cursor(views[-1].created_at, views[-1].id) if more else None
    return Page(data=[DatasetBody.listed(view) for view in views], has_more=more, next=last)


@router.get(
    "/{dataset_id}", responses=problem_responses(404, 503), operation_id="get_dataset", summary="Look at a dataset"
)
async def dataset(state: StateDep, dataset_id: DatasetId, wait: Wait = 0.0) -> DatasetBody:
    """Its status; once it is ready, its digest, classes, splits, image sizes, and the report of its import."""
    return DatasetBody.of(await state.datasets.wait(dataset_id, wait))


@router.delete(
    "/{dataset_id}",
    status_code=204,
    responses=problem_responses(404, 409, 503),
    operation_id="delete_dataset",
    summary="Delete a dataset",
)
async def delete(state: StateDep, dataset_id: DatasetId) -> Response:
    """Refused while a job uses it. Models that were trained on it stay."""
    await state.datasets.delete(dataset_id)
    return Response(status_code=204)
