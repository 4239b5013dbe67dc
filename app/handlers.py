"""One shape for every error, whoever raised it: a service, FastAPI's validation or the router."""

import re
from http import HTTPStatus

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import compile_path

from app.disconnect import CLIENT_CLOSED_REQUEST
from app.middleware import answers_head
from app.problems import InvalidError, ProblemError, field_errors, told
from app.responses import problem_response
from app.services.models import damaged
from models.manifest import ModelDamagedError

_HINTS = {
    404: "GET / lists the entry points; /openapi.json describes every route.",
    405: "The Allow header names the methods of this address.",
}
_HINT = "/openapi.json says what this address takes and answers."


class _Methods:
    """Which methods an address has, over all its routes: the framework's own answer knows the first one's alone."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._known: list[tuple[re.Pattern[str], frozenset[str]]] | None = None  # the most literal addresses first

    def allowed(self, path: str) -> list[str]:
        """Those of the address that says most of this path; none where there is no such address."""
        if self._known is None:  # once all routes are there
            self._known = self._collected()
        methods = set(next((methods for pattern, methods in self._known if pattern.match(path)), ()))
        if "GET" in methods and answers_head(path):
            methods.add("HEAD")
        return sorted(methods)

    def _collected(self) -> list[tuple[re.Pattern[str], frozenset[str]]]:
        found: dict[str, set[str]] = {}
        for route in iter_route_contexts(self._app.routes):
            if route.path is not None:
                found.setdefault(route.path, set()).update(route.methods or ())
        literally = sorted(found, key=lambda path: len(re.sub(r"\{.*?\}", "", path)), reverse=True)
        return [(compile_path(path)[0], frozenset(found[path])) for path in literally]


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)  # noqa: S101 - registered for this type only
    return problem_response(request, error)


async def _damaged(request: Request, error: Exception) -> Response:
    assert isinstance(error, ModelDamagedError)  # noqa: S101 - registered for this type only
    return problem_response(request, damaged(error))


async def _validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this type only
    errors = field_errors(error.errors())
    hint = "/openapi.json describes every parameter."
    return problem_response(request, InvalidError("invalid_request", told(errors), hint=hint, errors=errors))


def _http(request: Request, error: HTTPException, methods: _Methods) -> Response:
    phrase = HTTPStatus(error.status_code).phrase
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(methods.allowed(request.scope["path"]))
    problem = ProblemError(
        phrase.lower().replace(" ", "_"),
        f"{request.method} {request.url.path}: {error.detail}",
        hint=_HINTS.get(error.status_code, _HINT),
        headers=headers,
        status=error.status_code,
    )
    return problem_response(request, problem)


async def _gone(_: Request, __: Exception) -> Response:
    return Response(status_code=CLIENT_CLOSED_REQUEST)


def install(app: FastAPI) -> None:
    methods = _Methods(app)

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101 - registered for this type only
        return _http(request, error, methods)

    app.add_exception_handler(ProblemError, _problem)
    app.add_exception_handler(ModelDamagedError, _damaged)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(ClientDisconnect, _gone)
