"""Every list is a page with `limit` and `after`; one entry a page, it is walked to its end."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx
import pytest
from edge_kit import Server, dataset_on_disk, model_on_disk, own_redis, problem, serving, train
from hook_receiver import Receiver, deliveries_settled

from jobs.cursor import cursor
from jobs.ledger import Ledger
from jobs.model import Lane
from jobs.redis import connect
from models.networks.registry import NETWORKS
from models.recipes import RECIPES, Recipe
from store import redis_account
from store.layout import Layout
from store.settings import Settings

JSON = {"Accept": "application/json"}
FILES = ("metrics.json", "per_class.csv", "report.json")
#: Every list, and how many entries it has here.
LISTS = {
    "/v1/architectures": len(NETWORKS),
    "/v1/datasets": 3,
    "/v1/jobs": 3,
    "/v1/jobs/{job_id}/artifacts": len(FILES),
    "/v1/jobs/{job_id}/deliveries": 2,
    "/v1/jobs/{job_id}/events": 3,
    "/v1/models": 3,
    "/v1/recipe-fields": len(Recipe.model_fields),
    "/v1/recipes": len(RECIPES),
}


@dataclass(frozen=True)
class Filled:
    """A server with something in every list; `job` has files, events and deliveries."""

    server: Server
    job: str

    @property
    def http(self) -> httpx.Client:
        return self.server.http

    def page(self, path: str, **query: object) -> dict[str, Any]:
        answer = self.http.get(path.replace("{job_id}", self.job), params=query, headers=JSON)
        return answer.raise_for_status().json()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    layout = Layout(tmp_path_factory.mktemp("lists") / "data").create()
    url = redis_account.url(layout)
    with Receiver() as receiver, own_redis(layout), serving(Settings(data=layout.root, redis_url=url)) as server:
        datasets = [dataset_on_disk(layout, f"ds_{uuid4().hex}") for _ in range(3)]
        for name in ("deer", "elk", "moose"):
            model_on_disk(layout, name, f"job_{name}")
        webhook = {"url": receiver.url, "events": ["running", "succeeded"]}
        job = train(server.http, datasets[0], webhook=webhook).json()["id"]
        redis = connect(url)
        ledger = Ledger(redis)
        claim = ledger.claim(Lane.DEVICE, owner="test", token=uuid4().hex)
        assert claim is not None
        made = [{"name": name, "bytes": 1, "media_type": "text/plain", "sha256": "0" * 64} for name in FILES]
        ledger.succeed(claim, {"claim": 1, "artifacts": made})
        redis.close()
        for dataset in datasets[1:]:
            train(server.http, dataset).raise_for_status()
        deliveries_settled(server.http, job)
        yield Filled(server, job)


def lists(document: dict[str, Any]) -> dict[str, set[str]]:
    """Path of every GET whose answer is a page → the names of its query parameters."""
    schemas, found = document["components"]["schemas"], {}
    for path, methods in document["paths"].items():
        operation = methods.get("get", {"responses": {}})
        for content in operation["responses"].get("200", {}).get("content", {}).values():
            schema = content.get("schema", {})
            shape = schemas.get(schema.get("$ref", "").rpartition("/")[2], schema)
            if {"has_more", "next"} & set(shape.get("properties", {})):
                found[path] = {each["name"] for each in operation.get("parameters", []) if each["in"] == "query"}
    return found


def test_every_page_that_the_openapi_document_knows_has_a_limit_and_goes_on_after(http):
    found = lists(http.get("/openapi.json").json())
    assert set(found) == set(LISTS)
    assert {path: parameters for path, parameters in found.items() if not {"limit", "after"} <= parameters} == {}


@pytest.mark.parametrize("path", LISTS)
def test_a_list_is_walked_to_its_end_one_entry_a_page(filled, path):
    whole = filled.page(path)
    assert (len(whole["data"]), whole["has_more"], whole["next"]) == (LISTS[path], False, None)
    found, after = [], {}
    while True:
        page = filled.page(path, limit=1, **after)
        (entry,) = page["data"]
        found.append(entry)
        assert page["has_more"] == (page["next"] is not None)
        if not page["has_more"]:
            break
        after = {"after": page["next"]}
    assert found == whole["data"]


@pytest.mark.parametrize("path", LISTS)
def test_a_limit_below_one_or_beyond_what_a_page_holds_is_refused(filled, path):
    for limit in (0, 201):
        answer = filled.http.get(path.replace("{job_id}", filled.job), params={"limit": limit}, headers=JSON)
        assert problem(answer, 422, "invalid_request")["errors"][0]["pointer"] == "/query/limit"


@pytest.mark.parametrize("path", sorted(LISTS.keys() - {"/v1/models", "/v1/jobs/{job_id}/events"}))
def test_a_place_that_no_page_named_is_refused(filled, path):
    answer = filled.http.get(path.replace("{job_id}", filled.job), params={"after": "nobody"})
    assert problem(answer, 422, "invalid_cursor")["errors"][0]["pointer"] == "/query/after"


def test_behind_a_delivery_that_is_not_kept_any_more_there_is_nothing(filled):
    url = f"/v1/jobs/{filled.job}/deliveries"
    answer = filled.http.get(url, params={"after": cursor(datetime(2020, 1, 1, tzinfo=UTC), "1577836800000-0")})
    assert (answer.json()["data"], answer.json()["has_more"]) == ([], False)
