"""JSON that leaves: written by orjson, in which NaN and infinities become null."""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from app.problems import ProblemError, document


class JsonResponse(Response):
    media_type = "application/json"

    def render(self, content: Any) -> bytes:  # noqa: ANN401 - anything that JSON can hold
        return orjson.dumps(content)


@dataclass(frozen=True)
class Told:
    """A refusal in the shape of the address that it is of."""

    status: int
    media_type: str
    body: bytes


def request_id_of(scope: Any) -> str:  # noqa: ANN401 - an ASGI scope
    return str(scope.get("request_id", "-"))


def problem_response(request: Request, problem: ProblemError) -> Response:
    told = tell(problem, path=request.scope["path"], request_id=request_id_of(request.scope))
    return Response(told.body, status_code=told.status, headers=problem.headers, media_type=told.media_type)


def tell(problem: ProblemError, *, path: str, request_id: str) -> Told:
    """A problem document, or below `/v2` what the Open Inference Protocol has. `path` is not percent-encoded."""
    if not _speaks_v2(path):
        body = orjson.dumps(document(problem, path=path, request_id=request_id))
        return Told(problem.status, "application/problem+json", body)
    status = 400 if problem.status == 422 else problem.status  # the protocol's one code for what is wrong
    text = f"{problem.detail} {problem.hint}" if problem.hint else problem.detail
    return Told(status, "application/json", orjson.dumps({"error": text}))


def head_of(status: int, headers: Mapping[str, str]) -> bytes:
    """The head of a response that no application writes, without its last line."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{lines}".encode("latin-1")


def server_timing(milliseconds: Mapping[str, float]) -> str:
    """The header Server-Timing of these stages."""
    return ", ".join(f"{stage};dur={value}" for stage, value in milliseconds.items())


def _speaks_v2(path: str) -> bool:
    return path == "/v2" or path.startswith("/v2/")
