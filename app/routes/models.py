"""Models: brought, looked at, loaded, taken away."""

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import FileResponse

from app.auth import needs
from app.conditional import is_known
from app.deps import After, IdempotencyKey, IfNoneMatch, Limit, ModelName, ModelRef, StateDep, UploadTerms
from app.file_responses import FileDownload, MadeFileDownload
from app.model_requests import receive
from app.schemas.common import LOCATED, NOT_MODIFIED, Page, header
from app.schemas.job_views import JobAccepted
from app.schemas.jobs import TERMS
from app.schemas.models import LabelsBody, LoadBody, ModelBody, ModelMetricsBody, ModelSummary
from app.schemas.problems import problem_responses
from app.services.model_versions import Form
from app.services.models import LOAD_SECONDS
from store.keys import Scope

router = APIRouter(prefix="/v1", tags=["models"])

Named = Annotated[str | None, Query(max_length=80, description="What the model is called; a form may say it instead.")]
Alias = Annotated[str | None, Query(max_length=80, description="An alias that then points to the new version.")]
Network = Annotated[str | None, Query(max_length=200, description="Default: told by the tensors' shapes.")]
Classes = Annotated[str | None, Query(max_length=16_000, description="A JSON list, in the order of the outputs.")]
Prepared = Annotated[str | None, Query(max_length=4_000, description='JSON, such as {"resize": 232}.')]
Version = Annotated[int, Path(ge=1, examples=[3], description="The version's number.")]
Wait = Annotated[float, Query(ge=0, le=60, description="Answer when it is ready, at the latest after so many seconds.")]
What = Annotated[Form, Query(description="All of it as a zip, or the weights alone.")]

_FILE = {"type": "string", "format": "binary"}
_FIELDS = ("name", "alias", "network", "classes", "preprocessing")
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/octet-stream": {"schema": _FILE, "example": "(the bytes of model.safetensors)"},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        **{name: {"type": "string"} for name in _FIELDS},
                        **TERMS,
                        "file": _FILE,
                    },
                    "required": ["name", "file"],
                },
                "example": {"name": "mine", "classes": '["cat", "dog"]', "file": "(the bytes of model.pth)"},
            },
        },
    }
}
_READ = problem_responses(404, 409)
_UPLOAD = {**LOCATED, **problem_responses(409, 503, 507)}
_CARD: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/markdown": {"schema": {"type": "string"}, "example": "# fashion, version 3\n"}}},
    **_READ,
}
_DOWNLOAD: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The file, as an attachment.",
        "headers": header("ETag"),
        "content": {
            "application/zip": {"example": "(the bytes of fashion-3.zip)"},
            "application/octet-stream": {"example": "(the bytes of fashion-3.safetensors)"},
        },
    },
    206: {"description": "The part that Range names.", "headers": header("ETag")},
    **NOT_MODIFIED,
    **problem_responses(400, 404, 409, 416),
}


@router.get(
    "/models",
    responses=problem_responses(),
    dependencies=needs(Scope.PREDICT),
    operation_id="list_models",
    summary="List models",
)
async def models(state: StateDep, limit: Limit = 50, after: After = None) -> Page[ModelSummary]:
    """By name."""
    found, more = await state.models.page(limit=limit, after=after)
    data = [ModelSummary.model_validate(each) for each in found]
    return Page(data=data, has_more=more, next=data[-1].name if more and data else None)


_IMPORT: dict[str, Any] = {
    "status_code": 202,
    "responses": _UPLOAD,
    "dependencies": needs(Scope.TRAIN),
    "openapi_extra": _BODY,
}


@router.put("/models", **_IMPORT, operation_id="import_model_put", summary="Bring a model (curl -T)")
@router.post("/models", **_IMPORT, operation_id="import_model", summary="Bring a model that was made elsewhere")
async def adopt(
    *,
    request: Request,
    response: Response,
    state: StateDep,
    key: IdempotencyKey,
    terms: UploadTerms,
    name: Named = None,
    alias: Alias = None,
    network: Network = None,
    classes: Classes = None,
    preprocessing: Prepared = None,
) -> JobAccepted:
    """A state dict (safetensors, or .pth by torch.save) or a bundle. Its job makes it the model's next version."""
    asked = {"name": name, "alias": alias, "network": network, "classes": classes, "preprocessing": preprocessing}
    found = await receive(request, state.adoptions, state.settings, query=asked, terms=terms, key=key)
    response.headers["Location"] = f"/v1/jobs/{found.job.id}"
    return JobAccepted.of(found.job, position=found.position)


@router.get(
    "/models/{name}",
    responses=_READ,
    dependencies=needs(Scope.PREDICT),
    operation_id="get_model",
    summary="Look at a model",
)
async def model(state: StateDep, name: ModelRef) -> ModelBody:
    """Its versions, newest first, each with its network, classes, metrics, digest and lineage; and what is loaded."""
    return ModelBody.model_validate(await state.models.get(name))


@router.get(
    "/models/{name}/card",
    response_class=Response,
    responses=_CARD,
    dependencies=needs(Scope.PREDICT),
    operation_id="get_model_card",
    summary="A model in words",
)
async def card(state: StateDep, name: ModelRef) -> Response:
    """Markdown: what it is, how good it is, where it came from."""
    return Response(await state.versions.card(name), media_type="text/markdown")


@router.get(
    "/models/{name}/labels",
    responses=_READ,
    dependencies=needs(Scope.PREDICT),
    operation_id="get_model_labels",
    summary="A model's classes",
)
async def labels(state: StateDep, name: ModelRef) -> LabelsBody:
    """In the order of the outputs."""
    return LabelsBody.model_validate(await state.versions.labels(name))


@router.get(
    "/models/{name}/metrics",
    responses=_READ,
    dependencies=needs(Scope.PREDICT),
    operation_id="get_model_metrics",
    summary="How good it is",
)
async def metrics(state: StateDep, name: ModelRef) -> ModelMetricsBody:
    """What the version's evaluation gave."""
    return ModelMetricsBody.model_validate(await state.versions.metrics(name))


@router.post(
    "/models/{name}:load",
    responses={
        202: {"model": LoadBody, "description": "It is still being loaded."},
        **problem_responses(404, 409, 503),
    },
    dependencies=needs(Scope.TRAIN),
    operation_id="load_model",
    summary="Load a version",
)
async def load(state: StateDep, response: Response, name: ModelRef, wait: Wait = LOAD_SECONDS) -> LoadBody:
    """200 when it is ready, 202 while it is being loaded."""
    found = LoadBody.model_validate(await state.models.load(name, wait=wait))
    response.status_code = 200 if found.state == "ready" else 202
    return found


@router.post(
    "/models/{name}:unload",
    responses=problem_responses(404, 409, 503),
    dependencies=needs(Scope.TRAIN),
    operation_id="unload_model",
    summary="Unload a version",
)
async def unload(state: StateDep, name: ModelRef) -> LoadBody:
    """Its process has ended when the answer comes. The next request for it loads it again."""
    return LoadBody.model_validate(await state.models.unload(name))


@router.get(
    "/models/{name}/versions/{version}",
    responses=_READ,
    dependencies=needs(Scope.PREDICT),
    operation_id="get_model_version",
    summary="Look at a version",
)
async def version(state: StateDep, name: ModelName, version: Version) -> ModelBody:
    """The same as /v1/models/{name}@{version}: the model, with that version alone."""
    return ModelBody.model_validate(await state.models.get(f"{name}@{version}"))


@router.get(
    "/models/{name}/versions/{version}/download",
    responses=_DOWNLOAD,
    response_class=FileResponse,
    dependencies=needs(Scope.TRAIN),
    operation_id="download_model_version",
    summary="Download a version",
)
async def download(
    *,
    state: StateDep,
    name: ModelName,
    version: Version,
    format: What = "bundle",  # noqa: A002 - the parameter's name
    if_none_match: IfNoneMatch = "",
) -> Response:
    """A bundle is what an export gives, and can be brought again."""
    has = partial(is_known, if_none_match=if_none_match)
    file = await state.versions.download(name, version, format, has=has)
    headers = {"ETag": f'"{file.etag}"', "Cache-Control": "private, no-cache"}
    if file.path is None:
        return Response(status_code=304, headers=headers)
    options: dict[str, Any] = {"media_type": file.media_type, "filename": file.filename, "headers": headers}
    if file.lock is None:
        return FileDownload(file.path, **options)
    return MadeFileDownload(file.path, discard=file.discard, **options)


@router.delete(
    "/models/{name}/versions/{version}",
    status_code=204,
    responses=problem_responses(404, 409, 503),
    dependencies=needs(Scope.TRAIN),
    operation_id="delete_model_version",
    summary="Delete a version",
)
async def delete(state: StateDep, name: ModelName, version: Version) -> Response:
    """Refused while an alias needs it or an engine has it. Its number is not used again; its job stays."""
    await state.versions.delete(name, version)
    return Response(status_code=204)
