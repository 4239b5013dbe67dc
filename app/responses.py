"""JSON that leaves: written by orjson, in which NaN and infinities become null."""

from collections.abc import Mapping
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from app.problems import ProblemError, document


class JsonResponse(Response):
    media_type = "application/json"

    def render(self, content: Any) -> bytes:  # noqa: ANN401 - anything that JSON can hold
        return orjson.dumps(content)


class ProblemResponse(JsonResponse):
    media_type = "application/problem+json"


def request_id_of(scope: Any) -> str:  # noqa: ANN401 - an ASGI scope
    return str(scope.get("request_id", "-"))


def problem_response(request: Request, problem: ProblemError) -> Response:
    path = request.scope["path"]
    if speaks_v2(path):
        status = 400 if problem.status == 422 else problem.status  # the protocol's one code for what is wrong
        return JsonResponse(document_v2(problem), status_code=status, headers=problem.headers)
    body = document(problem, instance=path, request_id=request_id_of(request.scope))
    return ProblemResponse(body, status_code=problem.status, headers=problem.headers)


def server_timing(milliseconds: Mapping[str, float]) -> str:
    """The header Server-Timing of these stages."""
    return ", ".join(f"{stage};dur={value}" for stage, value in milliseconds.items())


def speaks_v2(path: str) -> bool:
    """Whether errors there have the shape of the Open Inference Protocol."""
    return path == "/v2" or path.startswith("/v2/")


def document_v2(problem: ProblemError) -> dict[str, str]:
    """A refusal as the Open Inference Protocol has it: one text, so the hint goes in."""
    return {"error": f"{problem.detail} {problem.hint}" if problem.hint else problem.detail}
