"""Every refusal of the HTTP interface, as RFC 9457 problem details.

    ProblemError          500, or the `status` that it is given: 415, 416 and 507, each raised in one place, and what
    │                     the router refuses (405)
    ├── BadRequestError   400  the request cannot be read
    ├── UnauthorizedError 401  ForbiddenError 403
    ├── NotFoundError     404  NotAcceptableError 406
    ├── TooSlowError      408  TooLargeError 413
    ├── ConflictError     409  the right request in the wrong state
    ├── PreconditionError 412  what the caller knows (If-Match) is no longer so
    ├── InvalidError      422  the request is understood and wrong
    ├── TooManyError      429  this caller asks too much at once (Retry-After)
    ├── UnavailableError  503  come back later (Retry-After)
    └── DeadlineError     504

Services raise these; nothing here knows a web framework.
"""

import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, TypedDict
from urllib.parse import quote

from pydantic import ValidationError

_IN_A_PATH = "/:@!$&'()*+,;="  # beside letters, digits and -._~ (RFC 3986, 3.3)


class FieldError(TypedDict):
    """One wrong field: `pointer` is `#/a/b` (RFC 6901) in a JSON body, else `/query/name`, `/path/name`, …"""

    pointer: str
    detail: str


def wrong(pointer: str, detail: str) -> list[FieldError]:
    """The `errors` of a problem with one wrong field."""
    return [{"pointer": pointer, "detail": detail}]


class ProblemError(Exception):
    """A refusal that a client can act on. `code` is stable and machine-readable, `hint` says what to do instead.

    `members` are further members of the answer, for machines (RFC 9457, 3.2).
    """

    status: int = 500

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        hint: str,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
        status: int | None = None,
        members: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.hint = hint
        self.errors = list(errors)
        self.headers = dict(headers or {})
        self.members = dict(members or {})
        if status is not None:
            self.status = status


class BadRequestError(ProblemError):
    status = 400


class UnauthorizedError(ProblemError):
    status = 401

    def __init__(self, code: str, detail: str, *, hint: str) -> None:
        super().__init__(code, detail, hint=hint, headers={"WWW-Authenticate": 'Bearer realm="resnetd"'})


class ForbiddenError(ProblemError):
    status = 403


class NotFoundError(ProblemError):
    status = 404


class NotAcceptableError(ProblemError):
    """The answer comes in none of the media types that the request's Accept names."""

    status = 406

    def __init__(self, detail: str, *, hint: str) -> None:
        super().__init__("not_acceptable", detail, hint=hint)


class ConflictError(ProblemError):
    status = 409


class PreconditionError(ProblemError):
    status = 412


class TooLargeError(ProblemError):
    status = 413


class InvalidError(ProblemError):
    status = 422


class TooSlowError(ProblemError):
    """The connection is closed: the rest of the request is not waited for."""

    status = 408

    def __init__(self, code: str, detail: str, *, hint: str) -> None:
        super().__init__(code, detail, hint=hint, headers={"Connection": "close"})


class TooManyError(ProblemError):
    status = 429

    def __init__(self, code: str, detail: str, *, hint: str, retry_after: int = 1) -> None:
        super().__init__(code, detail, hint=hint, headers={"Retry-After": str(retry_after)})


class UnavailableError(ProblemError):
    status = 503

    def __init__(self, code: str, detail: str, *, hint: str, retry_after: int = 2) -> None:
        super().__init__(code, detail, hint=hint, headers={"Retry-After": str(retry_after)})


class DeadlineError(ProblemError):
    status = 504


def failure() -> ProblemError:
    """What is told where code failed."""
    return ProblemError(
        "internal_error",
        "The server failed to answer this request; the log has the reason under the request id.",
        hint="Report the request_id. Repeating the request is safe where it carries an Idempotency-Key.",
    )


def document(problem: ProblemError, *, path: str, request_id: str) -> dict[str, Any]:
    """The body of a problem answer to the address whose path, not percent-encoded, this is."""
    return {
        "type": f"urn:resnetd:problem:{problem.code}",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.detail,
        "instance": quote(path, safe=_IN_A_PATH),
        "code": problem.code,
        "request_id": request_id,
        "hint": problem.hint,
        "errors": problem.errors,
        **problem.members,
    }


def pointer(location: Sequence[int | str]) -> str:
    """The pointer of a pydantic error location: `("body", "a", 0)` → `#/a/0`, `("query", "k")` → `/query/k`."""
    place = location[0] if location else "body"
    steps = [str(step).replace("~", "~0").replace("/", "~1") for step in location[1:]]
    return "/".join(["#", *steps]) if place == "body" else "/".join(["", str(place), *steps])


def field_errors(errors: Sequence[Mapping[str, Any]], *, place: str | None = None) -> list[FieldError]:
    """Pydantic's errors as `errors[]`; `place` goes in front of each location. Values that were sent are left out."""
    found: list[FieldError] = []
    for error in errors[:20]:
        location = tuple(error["loc"]) if place is None else (place, *error["loc"])
        found.append({"pointer": pointer(location), "detail": _said(error)})
    return found


def body_errors(error: ValidationError) -> list[FieldError]:
    """What is wrong with a JSON body as `errors[]`."""
    return field_errors(error.errors(include_url=False, include_context=False, include_input=False), place="body")


def told(errors: Sequence[FieldError]) -> str:
    """`errors[]` as one text: `#/a: …; #/b: …`."""
    return "; ".join(f"{each['pointer']}: {each['detail']}" for each in errors)


def _said(error: Mapping[str, Any]) -> str:
    """Pydantic's message without Python's names in it."""
    match error["type"]:
        case "model_type" | "model_attributes_type" | "dict_type":
            return "Input should be a JSON object"
        case "list_type" | "tuple_type":
            return "Input should be a JSON array"
        case _:
            message = str(error["msg"]).removeprefix("Value error, ")
            return re.sub(r"^(Tuple|List|Set) should have (.*?) after validation.*", r"Array should have \2", message)
