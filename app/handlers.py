"""One shape for every error, whoever raised it: a service, FastAPI's validation or the router."""

from collections.abc import Mapping
from http import HTTPStatus

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from app.disconnect import CLIENT_CLOSED_REQUEST
from app.middleware import answers_head
from app.problems import InvalidError, ProblemError, field_errors
from app.responses import problem_response

_HINTS = {
    404: "GET / lists the entry points; /openapi.json describes every route.",
    405: "The Allow header names the methods of this address.",
}


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)  # noqa: S101 - registered for this type only
    return problem_response(request, error)


async def _validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this type only
    errors = field_errors(error.errors())
    detail = "; ".join(f"{item['pointer']}: {item['detail']}" for item in errors)
    hint = "/openapi.json describes every parameter."
    return problem_response(request, InvalidError("invalid_request", detail, hint=hint, errors=errors))


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this type only
    phrase = HTTPStatus(error.status_code).phrase
    problem = ProblemError(
        phrase.lower().replace(" ", "_"),
        f"{request.method} {request.url.path}: {error.detail}",
        hint=_HINTS.get(error.status_code),
        headers=_with_head(request, error.headers),
        status=error.status_code,
    )
    return problem_response(request, problem)


def _with_head(request: Request, headers: Mapping[str, str] | None) -> Mapping[str, str] | None:
    """Where GET is allowed, HEAD is (`app/middleware.py`), which the router does not know."""
    allowed = (headers or {}).get("Allow", "").split(", ")
    if "GET" not in allowed or "HEAD" in allowed or not answers_head(request.url.path):
        return headers
    return {**(headers or {}), "Allow": ", ".join([*allowed, "HEAD"])}


async def _gone(_: Request, __: Exception) -> Response:
    return Response(status_code=CLIENT_CLOSED_REQUEST)


def install(app: FastAPI) -> None:
    app.add_exception_handler(ProblemError, _problem)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(ClientDisconnect, _gone)
