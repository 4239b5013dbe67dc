"""The OpenAPI document: whole, and as the server answers."""

import asyncio
import importlib
import pkgutil
import re
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
import pytest
from edge_kit import IMAGE, Server, dataset_on_disk, model_on_disk, operations, serving, train
from pydantic import BaseModel
from samples import tiny_zip

from app import schemas
from app.image_requests import JsonImages
from app.schemas import artifacts, deliveries, inference_v2, system
from store.settings import Settings

ERRORS = Path(__file__).resolve().parents[3] / "docs" / "errors.md"
TOLD = ("ETag", "Location", "Retry-After", "WWW-Authenticate", "X-Request-ID")
BODY = {"kind": "train", "dataset": "ds_pets", "recipe": "mnist"}


@pytest.fixture(scope="module")
def document(server: Server) -> dict[str, Any]:
    return dict(server.http.get("/openapi.json").json())


def answers(document: dict[str, Any], operation: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Status → what may be answered, references followed."""
    shared = document["components"]["responses"]
    found = operation["responses"].items()
    return {status: shared[each["$ref"].rpartition("/")[2]] if "$ref" in each else each for status, each in found}


def has_example(content: dict[str, Any], schemas: dict[str, Any]) -> bool:
    name = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
    if name.endswith("Page"):
        name = schemas[name]["properties"]["data"]["items"]["$ref"].rpartition("/")[2]
    return "example" in content or "examples" in content or bool(schemas.get(name, {}).get("examples"))


def test_every_operation_documents_an_example_and_its_problems(document):
    assert document["openapi"].startswith("3.1")
    schemas = document["components"]["schemas"]
    found = list(operations(document))
    assert len(found) >= 20
    for name, operation in found:
        told = answers(document, operation)
        problems = [each["content"] for status, each in told.items() if status[0] in "45d"]
        shape = "application/json" if " /v2" in name else "application/problem+json"
        assert any(shape in content for content in problems), name
        assert "HTTPValidationError" not in str(operation), name
        fine = [each for status, each in told.items() if status.startswith("2")]
        contents = [content for each in fine for content in each.get("content", {}).values()]
        assert all(has_example(content, schemas) for content in contents), name
        assert contents or "204" in told, name
        body = operation.get("requestBody", {}).get("content", {})
        assert all(has_example(content, schemas) for content in body.values()), name
        if name.split()[0] == "PUT" or name in ("POST /v1/jobs", "POST /v1/datasets", "POST /v1/classify"):
            assert body, name


def test_what_an_upload_may_meet_is_documented(document):
    paths = document["paths"]
    uploads = [paths[path][method] for path in ("/v1/datasets", "/v1/models") for method in ("post", "put")]
    assert all("507" in each["responses"] for each in [*uploads, paths["/v1/datasets/{dataset_id}"]["put"]])


def test_what_a_body_or_a_key_may_be_refused_with_is_documented(document):
    bodies, keys = set(), set()
    for name, operation in operations(document):
        if "/v2/" not in name and "requestBody" in operation:
            bodies.add(name)
            assert {"400", "408", "413", "422"} <= set(operation["responses"]), name
        if "Idempotency-Key" in {each["name"] for each in operation.get("parameters", [])}:
            keys.add(name)
            assert "400" in operation["responses"], name
    assert {"POST /v1/jobs", "PATCH /v1/jobs/{job_id}", "POST /v1/classify", "PUT /v1/datasets"} <= bodies
    assert {"POST /v1/jobs", "POST /v1/jobs/{job_id}/cancel", "POST /v1/models"} <= keys


def test_a_refusals_example_has_its_status_and_a_code_that_has_it(document):
    rows = re.findall(r"^\| `(\w+)` \| ([0-9, ]+) \|", ERRORS.read_text(), re.M)
    codes = {code: {int(status) for status in cell.split(", ")} for code, cell in rows}
    shown = set()
    for name, operation in operations(document):
        for status, answer in answers(document, operation).items():
            example = answer.get("content", {}).get("application/problem+json", {}).get("example")
            if example is None:
                assert status < "4" or " /v2" in name or name == "GET /readyz", (name, status)
                continue
            expected = 500 if status == "default" else int(status)
            assert example["status"] == expected, (name, status)
            assert expected in codes[example["code"]], (name, example["code"])
            assert example["title"] == HTTPStatus(expected).phrase
            shown.add(example["code"])
    assert {"job_not_found", "dataset_not_found", "model_not_found"} <= shown


def incomplete(example: Any, schema: Any, document: dict[str, Any], place: str) -> Iterator[str]:
    """Every member that a schema requires of an example, and that it does not have."""
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    kinds = [each for each in schema.get("anyOf", ()) if each != {"type": "null"}]
    if example is not None and len(kinds) == 1:
        yield from incomplete(example, kinds[0], document, place)
    elif isinstance(example, list) and isinstance(schema.get("items"), dict):
        for each in example:
            yield from incomplete(each, schema["items"], document, f"{place}[]")
    elif isinstance(example, dict):
        yield from (f"{place}.{name}" for name in schema.get("required", ()) if name not in example)
        for name, each in example.items():
            yield from incomplete(each, schema.get("properties", {}).get(name, {}), document, f"{place}.{name}")


def test_examples_have_all_that_their_schemas_require(document):
    lacking: list[str] = []
    for name, schema in document["components"]["schemas"].items():
        for example in schema.get("examples", ()):
            lacking += incomplete(example, schema, document, name)
    for name, operation in operations(document):
        bodies = [operation.get("requestBody", {}), *answers(document, operation).values()]
        for content in [content for each in bodies for content in each.get("content", {}).values()]:
            if "example" in content:
                lacking += incomplete(content["example"], content.get("schema", {}), document, name)
    assert lacking == []
    (accepted,) = document["components"]["schemas"]["JobAccepted"]["examples"]
    assert accepted["metrics"] == {"latest": None, "best": None}
    assert list(accepted)[:3] == ["id", "kind", "state"]  # in the order of its fields


def test_each_operation_has_a_short_name_of_its_own_and_all_is_described(document):
    names = [operation["operationId"] for _, operation in operations(document)]
    assert len(set(names)) == len(names)
    assert {"create_job", "put_alias", "classify", "list_models", "v2_infer"} <= set(names)
    for name, operation in operations(document):
        assert re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+){0,3}", operation["operationId"]), name
        assert operation.get("description", "").strip(), name
        assert [each["name"] for each in operation.get("parameters", ()) if not each.get("description")] == [], name
    tags = {each["name"]: each["description"] for each in document["tags"]}
    assert set(tags) == {tag for _, operation in operations(document) for tag in operation["tags"]}
    assert all(tags.values())


def test_references_lead_somewhere_and_names_say_what_they_are_of(document):
    for kind, name in re.findall(r"'#/components/(\w+)/([^']+)'", str(document)):
        assert name in document["components"][kind], name
    names = set(document["components"]["schemas"])
    assert {"JobState", "JobKind", "JobPriority", "DatasetStatus", "JobPage", "Problem", "ErrorBody"} <= names
    assert names.isdisjoint({"State", "Kind", "Status", "Priority", "Report", "Source", "Past", "Part", "Queue"})
    assert [name for name in names if not re.fullmatch(r"([A-Z][a-z0-9]+)+", name)] == []


def test_members_that_every_answer_has_are_required(document):
    schemas = document["components"]["schemas"]
    for name in ("DatasetBody", "DeliveriesBody", "JobBody", "JobPage", "MeasuredBody", "PlanBody", "Problem"):
        assert set(schemas[name]["required"]) == set(schemas[name]["properties"]), name


def with_examples() -> list[type[BaseModel]]:
    """Every model below app.schemas that has examples."""
    modules = [importlib.import_module(each.name) for each in pkgutil.iter_modules(schemas.__path__, "app.schemas.")]
    found = {kind for module in modules for kind in vars(module).values() if isinstance(kind, type)}
    kinds = [kind for kind in found if issubclass(kind, BaseModel)]
    return [kind for kind in kinds if "examples" in (kind.model_config.get("json_schema_extra") or {})]


def test_examples_are_valid_by_their_own_models():
    kinds = with_examples()
    assert {artifacts.ArtifactBody, deliveries.DeliveriesBody, system.Liveness, *inference_v2.DESCRIBED} <= set(kinds)
    for kind in [JsonImages, *kinds]:
        for example in kind.model_config["json_schema_extra"]["examples"]:
            kind.model_validate(example)


@pytest.fixture(scope="module")
def furnished(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the model `toy`, and a version of it that is damaged."""
    data = tmp_path_factory.mktemp("furnished") / "data"
    with serving(settings.model_copy(update={"data": data})) as server:
        model_on_disk(server.layout, "toy", "job_toy")
        damaged = server.layout.models / "toy" / "2"
        damaged.mkdir()
        (damaged / "model.json").write_text("{")
        yield server


def as_documented(document: dict[str, Any], name: str, answer: httpx.Response) -> None:
    """The answer's status is among those of the operation of this name, with this media type and these headers."""
    (operation,) = (each for _, each in operations(document) if each["operationId"] == name)
    told = answers(document, operation)
    assert str(answer.status_code) in told, answer.text
    said = told[str(answer.status_code)]
    if "content-type" in answer.headers and "content" in said:
        assert answer.headers["content-type"].partition(";")[0] in said["content"]
    headers = {each for each in TOLD if each in answer.headers}
    assert headers == set(TOLD) & set(said["headers"])


@pytest.mark.parametrize(
    ("name", "method", "path", "options", "status"),
    [
        ("list_models", "GET", "/v1/models", {}, 200),
        ("list_models", "GET", "/v1/models?limi=1", {}, 422),
        ("list_models", "GET", "/v1/models?limit=0", {}, 422),
        ("list_models", "GET", "/v1/models", {"headers": {"Authorization": "Bearer none"}}, 401),
        ("list_models", "GET", "/v1/models", {"headers": {"Host": "elsewhere.example"}}, 403),
        ("get_model", "GET", "/v1/models/nobody", {}, 404),
        ("get_model", "GET", "/v1/models/toy?wait=1", {}, 422),
        ("get_model", "GET", "/v1/models/toy@2", {}, 409),
        ("get_model_version", "GET", "/v1/models/toy/versions/2", {}, 409),
        ("get_model_version", "GET", "/v1/models/toy/versions/0", {}, 422),
        ("get_model_card", "GET", "/v1/models/toy@1/card", {}, 200),
        ("get_model_labels", "GET", "/v1/models/toy@2/labels", {}, 409),
        ("load_model", "POST", "/v1/models/nobody:load", {}, 404),
        ("load_model", "POST", "/v1/models/toy@1:load?wait=99", {}, 422),
        ("load_model", "POST", "/v1/models/toy@1:load", {}, 503),  # there is no fleet in these tests
        ("unload_model", "POST", "/v1/models/toy@1:unload", {}, 503),
        ("download_model_version", "GET", "/v1/models/toy/versions/2/download", {}, 409),
        ("list_aliases", "GET", "/v1/models/toy/aliases", {}, 200),
        ("list_aliases", "GET", "/v1/models/toy/aliases", {"headers": {"If-None-Match": "*"}}, 304),
        ("list_aliases", "GET", "/v1/models/toy/aliases?alias=production", {}, 422),
        ("get_alias", "GET", "/v1/models/toy/aliases/none", {}, 404),
        ("get_alias", "GET", "/v1/models/toy/aliases/production?version=1", {}, 422),
        ("put_alias", "PUT", "/v1/models/toy/aliases/a", {"json": {"version": 1}}, 200),
        ("put_alias", "PUT", "/v1/models/toy/aliases/a", {"content": "{"}, 400),
        (
            "put_alias",
            "PUT",
            "/v1/models/toy/aliases/a",
            {"json": {"version": 1}, "headers": {"If-Match": '"no"'}},
            412,
        ),
        ("roll_back_alias", "POST", "/v1/models/toy/aliases/production:rollback", {}, 409),
        ("delete_alias", "DELETE", "/v1/models/toy/aliases/a", {"headers": {"If-Match": "no ETag"}}, 400),
        ("get_job", "GET", "/v1/jobs/job_nobody", {}, 404),
        ("get_job", "GET", "/v1/jobs/job_nobody?wait=99", {}, 422),
        ("follow_job", "GET", "/v1/jobs/job_nobody/events?limit=0", {}, 422),
        ("follow_job", "GET", "/v1/jobs/job_nobody/events", {"headers": {"Last-Event-ID": "last"}}, 400),
        ("follow_job", "GET", "/v1/jobs/job_nobody/events", {"headers": {"Accept": "text/html"}}, 406),
        ("create_job", "POST", "/v1/jobs", {"json": BODY, "headers": {"Idempotency-Key": "a" * 256}}, 400),
        ("create_job", "POST", "/v1/jobs", {"json": BODY}, 422),
        ("cancel_job", "POST", "/v1/jobs/job_nobody/cancel", {}, 404),
        ("upload_dataset", "POST", "/v1/datasets", {"content": tiny_zip()}, 202),
        ("upload_dataset_put", "PUT", "/v1/datasets", {"content": b"no archive"}, 422),
        ("delete_dataset", "DELETE", "/v1/datasets/ds_nobody", {}, 404),
        ("list_recipes", "GET", "/v1/recipes?name=mnist", {}, 422),
        ("classify", "POST", "/v1/classify", {"content": IMAGE}, 200),
        ("classify", "POST", "/v1/classify?model=damaged", {"content": IMAGE}, 409),
        ("classify_put", "PUT", "/v1/classify?model=starting", {"content": IMAGE}, 503),
        ("classify_by_model", "POST", "/v1/models/late:classify", {"content": IMAGE}, 504),
        ("classify_by_model", "POST", "/v1/models/wide:classify", {"content": b"x" * 1_000_001}, 413),
        ("explain", "POST", "/v1/explain", {"content": IMAGE, "headers": {"Accept": "text/html"}}, 406),
        ("preprocess_by_model", "POST", "/v1/models/unknown:preprocess", {"content": IMAGE}, 404),
        ("v2_server_metadata", "GET", "/v2", {}, 200),
        ("v2_server_metadata", "GET", "/v2?x=1", {}, 400),
        ("v2_model_metadata", "GET", "/v2/models/nobody", {}, 404),
        ("v2_version_metadata", "GET", "/v2/models/toy/versions/2", {}, 409),
        ("v2_model_ready", "GET", "/v2/models/toy/versions/1/ready", {}, 400),
        ("v2_infer", "POST", "/v2/models/toy/infer", {"content": b"{", "headers": {"Content-Encoding": "br"}}, 415),
        ("v2_repository_index", "POST", "/v2/repository/index", {}, 200),
        ("v2_load_model", "POST", "/v2/repository/models/toy@1/load", {}, 503),
        ("get_readiness", "GET", "/readyz", {}, 200),
        ("get_metrics", "GET", "/metrics", {}, 200),
    ],
)
def test_what_the_server_answers_is_documented(*, furnished, document, name, method, path, options, status):
    answer = furnished.http.request(method, path, **options)
    assert answer.status_code == status, answer.text
    as_documented(document, name, answer)


def test_what_a_load_answers_before_it_is_done_is_documented(furnished, document, monkeypatch):
    async def slowly(*_: object) -> dict[str, Any]:
        await asyncio.sleep(0.2)
        return {"state": "ready"}

    monkeypatch.setattr(furnished.state.models._fleet, "load", slowly)
    for wait, status in ((0, 202), (5, 200)):
        answer = furnished.http.post(f"/v1/models/toy@1:load?wait={wait}")
        assert answer.status_code == status
        as_documented(document, "load_model", answer)


def test_what_a_job_and_its_dataset_answer_is_documented(furnished, document):
    dataset = dataset_on_disk(furnished.layout, "ds_openapi")
    made = train(furnished.http, dataset)
    assert made.status_code == 202
    as_documented(document, "create_job", made)
    job = made.json()["id"]
    refused = furnished.http.delete(f"/v1/datasets/{dataset}")
    assert refused.status_code == 409
    as_documented(document, "delete_dataset", refused)
    for name, verb, status in (
        ("finish_job", "finish", 409),
        ("cancel_job", "cancel", 202),
        ("resume_job", "resume", 409),
        ("retry_job", "retry", 202),
    ):
        answer = furnished.http.post(f"/v1/jobs/{job}/{verb}")
        assert answer.status_code == status, answer.text
        as_documented(document, name, answer)
    again = answer.json()["id"]
    furnished.http.post(f"/v1/jobs/{again}/cancel").raise_for_status()
    page = furnished.http.get(f"/v1/jobs/{again}/events", headers={"Accept": "application/json"})
    as_documented(document, "follow_job", page)
