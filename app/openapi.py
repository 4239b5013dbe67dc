"""The OpenAPI document: what FastAPI says of the routes, made whole for who reads it and for clients made from it.

What follows from what a route asks for is said here once: the refusals of its scope, its query and its body, and the
headers of every answer. The routes say the rest.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, iter_route_contexts
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from app.admission import admitted
from app.auth import scope_of
from app.deps import event_cursor, idempotency_key, known_query
from app.image_requests import JsonImage
from app.schemas import aliases, inference_v2, jobs
from app.schemas.common import Page, header, ref
from app.schemas.problems import FAILED, OF_TAG, REFUSALS, Problem, Refusal

DESCRIPTION = """\
Trains residual networks and serves them.

A refusal is an RFC 9457 problem with a stable `code` and a `hint` that says what to do; below `/v2`, the Open Inference
Protocol, it is `{"error"}`. On a loopback address no key is needed. A request that bears an `Idempotency-Key` counts
once, however often it is sent. Lists come in pages: the `next` of one is the `after` of the following."""

TAGS = [
    {"name": "classification", "description": "Images in; out come labels, where the network looked, what it saw."},
    {"name": "datasets", "description": "Images with labels, uploaded as one archive and imported by a job."},
    {
        "name": "jobs",
        "description": "Imports, trainings, evaluations, exports and adoptions: asked for, followed, kept.",
    },
    {"name": "recipes", "description": "What a training can be asked with by name: recipes, their fields, networks."},
    {"name": "models", "description": "Models, their versions, and the aliases that say which version serves."},
    {
        "name": "open inference protocol",
        "description": "Version 2, as clients of KServe and Triton speak it: the same models, other shapes.",
    },
    {"name": "system", "description": "What probes, scrapers and newcomers ask."},
]
_SCHEMAS = "#/components/schemas/"
#: Names that are clear where the classes live, and not in a client's one list of all models.
_RENAMED = {
    "Duration": "StatisticDuration",
    "Kind": "JobKind",
    "LiveBody": "ServerLiveBody",
    "Origin": "ModelOrigin",
    "Outcome": "DeliveryOutcome",
    "Past": "PastVersion",
    "Priority": "JobPriority",
    "ReadyBody": "ServerReadyBody",
    "Report": "ImportReport",
    "Source": "DatasetSource",
    "State": "JobState",
    "Status": "DatasetStatus",
    "Truncated": "ReportTruncated",
}
#: Bodies that routes read by hand, and those of refusals.
_BY_HAND: tuple[type[BaseModel], ...] = (
    *jobs.DESCRIBED,
    *aliases.DESCRIBED,
    *inference_v2.DESCRIBED,
    inference_v2.ErrorBody,
    JsonImage,
    Problem,
)
_FINE = {"200": "The answer.", "202": "Taken on; it is done soon.", "204": "Done."}  # instead of "Successful Response"


def _text(description: str, example: str) -> dict[str, Any]:
    return {"description": description, "schema": {"type": "string"}, "example": example}


_HEADERS = {
    "ETag": _text("Names the state of what is shown: for If-None-Match, and of aliases for If-Match.", '"9d5c1f0e"'),
    "Location": _text("The address of what was made.", "/v1/jobs/job_8d3f21aa"),
    "Retry-After": {"description": "Ask again after so many seconds.", "schema": {"type": "integer"}, "example": 2},
    "WWW-Authenticate": _text("How to send a key.", 'Bearer realm="resnetd"'),
    "X-Request-ID": _text(
        "The request's own where it sent one, else a new one; the log has it.", "req_0f8fad5bd9cb469f"
    ),
}


def install(app: FastAPI) -> None:
    """Once all routes are there. The document is made when it is asked for first."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _completed(generate(), dict(_routes(app)))
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend the document


def _routes(app: FastAPI) -> Iterator[tuple[tuple[str, str], Any]]:
    """(path, method) and the route."""
    for route in iter_route_contexts(app.routes):
        if isinstance(route.route, APIRoute):
            yield from (((str(route.path), method.lower()), route) for method in route.methods or ())


def _completed(document: dict[str, Any], routes: Mapping[tuple[str, str], Any]) -> dict[str, Any]:
    components = document["components"]
    _, by_hand = models_json_schema([(model, "validation") for model in _BY_HAND], ref_template=_SCHEMAS + "{model}")
    schemas: dict[str, Any] = dict(sorted((components["schemas"] | by_hand["$defs"]).items()))
    responses: dict[str, Any] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            _complete(operation, routes[path, method], responses, v2=path.startswith("/v2"))
    components |= {"schemas": schemas, "responses": dict(sorted(responses.items())), "headers": _HEADERS}
    _mend_examples(document, schemas)
    for name in list(schemas):
        if (clear := _clear(name)) != name:
            schemas[clear] = schemas.pop(name) | {"title": clear}
        if clear.endswith("Page"):
            schemas[clear]["description"] = Page.__doc__
    whole: dict[str, Any] = _renamed(document)
    return whole


def _clear(name: str) -> str:
    page = re.fullmatch(r"Page_(\w+?)(Body|Summary)_", name)
    return f"{page[1]}Page" if page else _RENAMED.get(name, name)


def _complete(operation: dict[str, Any], route: Any, responses: dict[str, Any], *, v2: bool) -> None:  # noqa: ANN401
    """Say what follows from what the route asks for; its refusals go to `responses`."""
    scope = scope_of(route)
    if scope is not None:
        operation["description"] = f"{operation['description']}\n\nScope of the key: `{scope}`."
    said: dict[str, Any] = operation["responses"]
    own = {status: each for status, each in said.items() if status[0] in "23" or "content" in each}
    refused = {int(status) for status in said.keys() - own.keys() - {"default"}}
    refused |= set(_following(route.dependant, scoped=scope is not None, body="requestBody" in operation))
    if v2:  # the protocol's one code for what is wrong
        refused = {400 if status == 422 else status for status in refused}
    for status, answer in own.items():
        if answer["description"] == "Successful Response":
            answer["description"] = _FINE[status]
        answer["headers"] = answer.get("headers", {}) | _headers(int(status))
    of_tag = OF_TAG.get(operation["tags"][0], {})
    found = {str(status): of_tag.get(status, REFUSALS[status]) for status in sorted(refused)} | {"default": FAILED}
    operation["responses"] = own | {
        status: _referred(refusal, responses, v2=v2) for status, refusal in found.items() if status not in own
    }


def _following(dependant: Dependant, *, scoped: bool, body: bool) -> Iterator[int]:
    """The statuses of refusals that follow from what a route asks for."""
    asked = set(_calls(dependant))
    if scoped:
        yield from (401, 403)
    if known_query in asked:
        yield 422
    if idempotency_key in asked or event_cursor in asked:
        yield 400
    if admitted in asked:
        yield from (429, 503)
    if body:
        yield from (400, 408, 413, 422)


def _calls(dependant: Dependant) -> Iterator[Callable[..., Any] | None]:
    yield dependant.call
    for each in dependant.dependencies:
        yield from _calls(each)


def _headers(status: int) -> dict[str, Any]:
    more = {401: "WWW-Authenticate", 429: "Retry-After", 503: "Retry-After"}
    return header("X-Request-ID") | (header(more[status]) if status in more else {})


def _referred(refusal: Refusal, responses: dict[str, Any], *, v2: bool) -> dict[str, str]:
    """A reference to a refusal, which is put among `responses`."""
    name = f"V2{refusal.name}" if v2 else refusal.name
    if name not in responses:
        media_type = "application/json" if v2 else "application/problem+json"
        model, example = (inference_v2.ErrorBody, refusal.error()) if v2 else (Problem, refusal.problem())
        content = {media_type: {"schema": ref(model), "example": example}}
        responses[name] = {"description": refusal.meaning, "headers": _headers(refusal.status), "content": content}
    return {"$ref": f"#/components/responses/{name}"}


def _mend_examples(node: Any, schemas: Mapping[str, Any]) -> None:  # noqa: ANN401 - any part of the document
    """FastAPI leaves nulls out of examples and pydantic sorts them: back come those nulls that a schema requires, and
    its order.
    """
    if isinstance(node, dict):
        if "example" in node and "schema" in node:
            node["example"] = _whole(node["example"], node["schema"], schemas)
        elif "properties" in node and isinstance(node.get("examples"), list):
            node["examples"] = [_whole(each, node, schemas) for each in node["examples"]]
        for each in node.values():
            _mend_examples(each, schemas)
    elif isinstance(node, list):
        for each in node:
            _mend_examples(each, schemas)


def _whole(example: Any, schema: Any, schemas: Mapping[str, Any]) -> Any:  # noqa: ANN401 - anything that JSON can hold
    while isinstance(schema, dict) and ("$ref" in schema or "anyOf" in schema):
        options = [each for each in schema.get("anyOf", ()) if each != {"type": "null"}]
        if "$ref" in schema:
            schema = schemas[schema["$ref"].removeprefix(_SCHEMAS)]
        else:
            schema = options[0] if len(options) == 1 else {}
    if not isinstance(schema, dict):
        return example
    if isinstance(example, list):
        return [_whole(each, schema.get("items"), schemas) for each in example]
    if not isinstance(example, dict):
        return example
    known, required = schema.get("properties", {}), schema.get("required", ())
    names = [name for name in known if name in example or name in required]
    names += [name for name in example if name not in known]
    other = schema.get("additionalProperties")
    return {name: _whole(example.get(name), known.get(name, other), schemas) for name in names}


def _renamed(node: Any) -> Any:  # noqa: ANN401 - any part of the document
    """With references to the clear names."""
    if isinstance(node, dict):
        return {name: _renamed(each) for name, each in node.items()}
    if isinstance(node, list):
        return [_renamed(each) for each in node]
    if isinstance(node, str) and node.startswith(_SCHEMAS):
        return _SCHEMAS + _clear(node.removeprefix(_SCHEMAS))
    return node
