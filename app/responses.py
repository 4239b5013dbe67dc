"""JSON that leaves: written by orjson, in which NaN and infinities become null."""

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
    body = document(problem, instance=request.scope["path"], request_id=request_id_of(request.scope))
    return ProblemResponse(body, status_code=problem.status, headers=problem.headers)
