"""What a job made for download: figures and drawings of a training or an evaluation, the files of an export."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Response
from fastapi.responses import FileResponse

from app.auth import needs
from app.conditional import is_known
from app.deps import MAX_LIMIT, After, IfNoneMatch, JobId, Limit, StateDep
from app.file_responses import FileDownload
from app.schemas.artifacts import ArtifactBody
from app.schemas.common import NOT_MODIFIED, Page, header
from app.schemas.problems import problem_responses
from store.artifacts import MEDIA_TYPES
from store.keys import Scope

router = APIRouter(prefix="/v1/jobs/{job_id}/artifacts", tags=["jobs"], dependencies=needs(Scope.TRAIN))

Name = Annotated[str, Path(max_length=80, examples=["report.json"], description="A name of the list.")]
# A drawing holds names of classes that came with a dataset: should a browser show it after all, nothing in it runs.
_CONTENT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox"
_FILE: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The file, as an attachment.",
        "headers": header("ETag"),
        "content": {media_type: {"example": name} for name, media_type in sorted(MEDIA_TYPES.items())},
    },
    206: {"description": "The part that Range names.", "headers": header("ETag")},
    **NOT_MODIFIED,
    **problem_responses(400, 404, 409, 416, 503),
}


@router.get("", responses=problem_responses(404, 503), operation_id="list_artifacts", summary="List a job's files")
async def artifacts(
    *, state: StateDep, job_id: JobId, limit: Limit = MAX_LIMIT, after: After = None
) -> Page[ArtifactBody]:
    """By name. Empty until a training, an evaluation or an export has succeeded."""
    found, following = await state.artifacts.page(job_id, limit=limit, after=after)
    return Page.of([ArtifactBody.of(job_id, each) for each in found], following)


@router.get(
    "/{name}",
    responses=_FILE,
    response_class=FileResponse,
    operation_id="download_artifact",
    summary="Download a job's file",
)
async def artifact(state: StateDep, job_id: JobId, name: Name, if_none_match: IfNoneMatch = "") -> Response:
    """The file as it was made; its ETag is its SHA-256."""
    found = await state.artifacts.find(job_id, name)
    etag = found.artifact.sha256
    headers = {"ETag": f'"{etag}"', "Cache-Control": "private, no-cache", "Content-Security-Policy": _CONTENT_POLICY}
    if is_known(etag, if_none_match):
        return Response(status_code=304, headers=headers)
    return FileDownload(found.path, media_type=found.artifact.media_type, filename=found.filename, headers=headers)
