"""The Open Inference Protocol, version 2, as clients of KServe and Triton speak it. Its errors are `{"error"}`."""

from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Path, Request, Response

from app import bodies, encoded_bodies
from app.admission import admitted
from app.auth import needs
from app.deps import ModelRef, StateDep
from app.disconnect import unless_gone
from app.problems import BadRequestError
from app.schemas.inference_v2 import (
    ANSWER_EXAMPLE,
    CONFIG_EXAMPLE,
    INDEX_EXAMPLE,
    METADATA_EXAMPLE,
    REQUEST_EXAMPLE,
    ConfigBody,
    IndexEntry,
    IndexRequest,
    InferAnswer,
    LiveBody,
    MetadataBody,
    ModelReadyBody,
    ReadyBody,
    RepositoryRequest,
    ServerBody,
)
from app.schemas.problems import problem_responses
from app.schemas.statistics_v2 import STATISTICS_EXAMPLE, StatisticsBody
from app.services.inference_v2 import EXTENSIONS
from app.state import State
from store.keys import Scope
from store.version import code_version

router = APIRouter(prefix="/v2", tags=["open inference protocol"])

HEADER_LENGTH = "Inference-Header-Content-Length"
Version = Annotated[str, Path(max_length=100, examples=["1"], description="A version's number, or an alias.")]

_PREDICT = needs(Scope.PREDICT)
_COMPUTE = [*_PREDICT, Depends(admitted)]
_MANAGE = needs(Scope.TRAIN)


def _example(value: Any, *statuses: int) -> dict[int | str, dict[str, Any]]:  # noqa: ANN401 - anything that JSON can hold
    return {200: {"content": {"application/json": {"example": value}}}, **problem_responses(*statuses)}


def _body(model: str, example: dict[str, Any], *, required: bool) -> dict[str, Any]:
    content = {"schema": {"$ref": f"#/components/schemas/{model}"}, "example": example}
    return {"requestBody": {"required": required, "content": {"application/json": content}}}


@router.get(
    "",
    responses=problem_responses(),
    operation_id="v2_server_metadata",
    summary="The server, and what of the protocol it knows",
)
async def server() -> ServerBody:
    """Its name, its version, and Triton's extensions of the protocol that it has."""
    return ServerBody(name="resnetd", version=code_version(), extensions=list(EXTENSIONS))


@router.get(
    "/health/live", responses=problem_responses(), operation_id="v2_server_live", summary="Is this process alive"
)
async def live() -> LiveBody:
    """As /livez, in the shape of the protocol."""
    return LiveBody(live=True)


@router.get(
    "/health/ready",
    responses=problem_responses(400),
    operation_id="v2_server_ready",
    summary="Can the default model classify",
)
async def ready(state: StateDep) -> ReadyBody:
    """Like /readyz; a server that is not ready answers 400, as the protocol wants it."""
    is_ready, body = await state.readiness.look()
    if not is_ready:
        reason = body["parts"]["engine"]["reason"] or "it is going away"
        raise BadRequestError("not_ready", f"The server is not ready: {reason}.", hint="/readyz says more.")
    return ReadyBody(ready=True)


_STATISTICS = _example(STATISTICS_EXAMPLE, 404, 409)


@router.get(
    "/models/stats",
    responses=_example(STATISTICS_EXAMPLE),
    dependencies=_PREDICT,
    operation_id="v2_statistics",
    summary="What was counted of every model version",
)
async def statistics(state: StateDep) -> StatisticsBody:
    """As Triton's statistics, of what was asked by any route. One look is told to all who ask within half a second."""
    return StatisticsBody.model_validate(await state.inference_v2.statistics(state.metrics, None, None))


@router.get(
    "/models/{name}/stats",
    responses=_STATISTICS,
    dependencies=_PREDICT,
    operation_id="v2_model_statistics",
    summary="What was counted of a model's versions",
)
async def model_statistics(state: StateDep, name: ModelRef) -> StatisticsBody:
    """Of all its versions; of `name@3` or `name@alias` that one."""
    return StatisticsBody.model_validate(await state.inference_v2.statistics(state.metrics, name, None))


@router.get(
    "/models/{name}/versions/{version}/stats",
    responses=_STATISTICS,
    dependencies=_PREDICT,
    operation_id="v2_version_statistics",
    summary="What was counted of a version",
)
async def version_statistics(state: StateDep, name: ModelRef, version: Version) -> StatisticsBody:
    """Since the server's start, by whichever route it was asked."""
    return StatisticsBody.model_validate(await state.inference_v2.statistics(state.metrics, name, version))


_METADATA = _example(METADATA_EXAMPLE, 404, 409)


@router.get(
    "/models/{name}",
    responses=_METADATA,
    dependencies=_PREDICT,
    operation_id="v2_model_metadata",
    summary="A model's inputs and outputs",
)
async def metadata(state: StateDep, name: ModelRef) -> MetadataBody:
    """The version that the bare name stands for, and the numbers of all; of `name@3` or `name@alias` that one."""
    return MetadataBody.model_validate(await state.inference_v2.metadata(name, None))


@router.get(
    "/models/{name}/versions/{version}",
    responses=_METADATA,
    dependencies=_PREDICT,
    operation_id="v2_version_metadata",
    summary="A version's inputs and outputs",
)
async def version_metadata(state: StateDep, name: ModelRef, version: Version) -> MetadataBody:
    """A request has one of the inputs, and any of the outputs."""
    return MetadataBody.model_validate(await state.inference_v2.metadata(name, version))


_CONFIG = _example(CONFIG_EXAMPLE, 404, 409)


@router.get(
    "/models/{name}/config",
    responses=_CONFIG,
    dependencies=_PREDICT,
    operation_id="v2_model_config",
    summary="A model's configuration",
)
async def config(state: StateDep, name: ModelRef) -> ConfigBody:
    """The metadata in the shape of Triton's ModelConfig."""
    return ConfigBody.model_validate(await state.inference_v2.config(name, None))


@router.get(
    "/models/{name}/versions/{version}/config",
    responses=_CONFIG,
    dependencies=_PREDICT,
    operation_id="v2_version_config",
    summary="A version's configuration",
)
async def version_config(state: StateDep, name: ModelRef, version: Version) -> ConfigBody:
    """The version's metadata in the shape of Triton's ModelConfig."""
    return ConfigBody.model_validate(await state.inference_v2.config(name, version))


@router.get(
    "/models/{name}/ready",
    responses=problem_responses(400, 404, 409),
    dependencies=_PREDICT,
    operation_id="v2_model_ready",
    summary="Is a model loaded",
)
async def model_ready(state: StateDep, name: ModelRef) -> ModelReadyBody:
    """A model that is not loaded answers 400; the first request loads it."""
    return ModelReadyBody(name=await state.inference_v2.ready(name, None), ready=True)


@router.get(
    "/models/{name}/versions/{version}/ready",
    responses=problem_responses(400, 404, 409),
    dependencies=_PREDICT,
    operation_id="v2_version_ready",
    summary="Is a version loaded",
)
async def version_ready(state: StateDep, name: ModelRef, version: Version) -> ModelReadyBody:
    """A version that is not loaded answers 400; the first request for it loads it."""
    return ModelReadyBody(name=await state.inference_v2.ready(name, version), ready=True)


_BINARY = {"schema": {"type": "string", "format": "binary"}, "example": "(JSON, then the tensors' bytes)"}
_INFER: dict[int | str, dict[str, Any]] = {
    200: {
        "model": InferAnswer,
        "content": {
            "application/json": {"example": ANSWER_EXAMPLE},
            "application/octet-stream": _BINARY,
        },
        "headers": {
            HEADER_LENGTH: {
                "description": "Of a binary answer: how many bytes of it are its JSON.",
                "schema": {"type": "integer"},
                "example": 208,
            }
        },
    },
    **problem_responses(404, 409, 415, 504),
}
_ASKED = _body("InferRequest", REQUEST_EXAMPLE, required=True)
_ASKED["requestBody"]["content"]["application/octet-stream"] = _BINARY
_ASKED["parameters"] = [
    {
        "name": HEADER_LENGTH,
        "in": "header",
        "description": "How many bytes of a binary body are its JSON; 0: the body is one image.",
        "schema": {"type": "integer", "minimum": 0},
    }
]


@router.post(
    "/models/{name}/infer",
    responses=_INFER,
    dependencies=_COMPUTE,
    openapi_extra=_ASKED,
    operation_id="v2_infer",
    summary="Infer",
)
async def infer(request: Request, state: StateDep, name: ModelRef) -> Response:
    """By one of the inputs of the model's metadata. Binary tensors come and go as Triton's do.

    The body may have the Content-Encoding gzip or deflate; Inference-Header-Content-Length is then of what is inflated.
    """
    return await _infer(request, state, name, None)


@router.post(
    "/models/{name}/versions/{version}/infer",
    responses=_INFER,
    dependencies=_COMPUTE,
    openapi_extra=_ASKED,
    operation_id="v2_version_infer",
    summary="Infer by a version",
)
async def version_infer(request: Request, state: StateDep, name: ModelRef, version: Version) -> Response:
    """Like /v2/models/{name}/infer, by that version."""
    return await _infer(request, state, name, version)


async def _infer(request: Request, state: State, name: str, version: str | None) -> Response:
    limit = state.settings.max_request_bytes
    body = await encoded_bodies.read(request, limit, hint=f"RESNETD_MAX_REQUEST_BYTES is {limit:,}.")
    work = state.inference_v2.infer(body, header_length=request.headers.get(HEADER_LENGTH), model=name, version=version)
    answer = await unless_gone(request, work)
    if answer.header_length is None:
        return Response(answer.body, media_type="application/json")
    headers = {HEADER_LENGTH: str(answer.header_length)}
    return Response(answer.body, media_type="application/octet-stream", headers=headers)


@router.post(
    "/repository/index",
    responses=_example([INDEX_EXAMPLE]),
    dependencies=_PREDICT,
    openapi_extra=_body("IndexRequest", {"ready": True}, required=False),
    operation_id="v2_repository_index",
    summary="Every version of every model, with its state",
)
async def index(request: Request, state: StateDep) -> list[IndexEntry]:
    """With `ready` those alone that answer now. What no engine has is UNAVAILABLE; the first request loads it."""
    asked = await _optional(request, IndexRequest)
    return [IndexEntry.model_validate(each) for each in await state.inference_v2.index(ready=asked.ready)]


_CHANGE = _body("RepositoryRequest", {"parameters": {}}, required=False)


@router.post(
    "/repository/models/{name}/load",
    responses=_example(INDEX_EXAMPLE, 404, 409, 503),
    dependencies=_MANAGE,
    openapi_extra=_CHANGE,
    operation_id="v2_load_model",
    summary="Load a model, and wait until it answers",
)
async def load(request: Request, state: StateDep, name: ModelRef) -> IndexEntry:
    """At once where it is loaded already. 503 where it takes longer than a minute: it goes on loading."""
    await _no_parameters(request)
    return IndexEntry.model_validate(await state.inference_v2.load(name))


@router.post(
    "/repository/models/{name}/unload",
    responses=_example({**INDEX_EXAMPLE, "state": "UNAVAILABLE"}, 404, 409, 503),
    dependencies=_MANAGE,
    openapi_extra=_CHANGE,
    operation_id="v2_unload_model",
    summary="Unload a model, which frees its memory",
)
async def unload(request: Request, state: StateDep, name: ModelRef) -> IndexEntry:
    """`name` means all its loaded versions, `name@3` or `name@alias` that one. The next request for one loads it again.

    409 for what would be loaded again without a request: the server's default model, and what an alias in use goes to
    or shares its requests with.
    """
    await _no_parameters(request)
    return IndexEntry.model_validate(await state.inference_v2.unload(name))


async def _no_parameters(request: Request) -> None:
    """Raises BadRequestError for a configuration of the client's own, which would not be followed."""
    asked = await _optional(request, RepositoryRequest)
    unknown = sorted(set(asked.parameters) - {"unload_dependents"})  # which tritonclient always sends; there are none
    if unknown:
        hint = "A model's configuration is what it was trained with."
        raise BadRequestError("invalid_request", f"The parameter {unknown[0][:40]!r} is not supported.", hint=hint)


Model = TypeVar("Model", IndexRequest, RepositoryRequest)


async def _optional(request: Request, model: type[Model]) -> Model:
    """The JSON body, which may be absent."""
    body = await bodies.read(request, bodies.MAX_JSON_BYTES, hint="This request is a small JSON object.")
    return bodies.validate(model, await bodies.parse_json(body)) if body else model()
