"""/v1/models against a real catalog on disk."""

import hashlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import anyio.to_thread
import httpx
import pytest
from edge_kit import Server, problem

from benchmarks.manifests import lineage, write_hollow
from models.catalog import Catalog

WEIGHTS_BYTES = b"weights"


@pytest.fixture
def name(server: Server, tmp_path: Path) -> str:
    """A model with two versions, of which nobody has set an alias."""
    chosen = f"toy-{uuid4().hex[:8]}"
    catalog = Catalog(server.layout.models)
    for number in (1, 2):
        made = lineage(f"job_{number}", dataset_name="pets", recipe="mnist")
        folder = write_hollow(tmp_path / str(number), made, weights=WEIGHTS_BYTES, metrics={"top1": 0.8 + number / 100})
        catalog.publish(chosen, folder, made.job)
    return chosen


def test_a_model_tells_its_versions_and_where_each_came_from(http, name):
    body = http.get(f"/v1/models/{name}").json()
    assert (body["name"], body["latest"], body["version_count"]) == (name, 2, 2)
    assert body["aliases"] == {"production": 2}
    assert [each["version"] for each in body["versions"]] == [2, 1]
    first = body["versions"][1]
    assert first["network"]["name"] == "cifar/resnet8"
    assert first["classes"] == ["cat", "dog"]
    assert first["metrics"] == {"top1": 0.81}
    assert first["weights_sha256"] == hashlib.sha256(WEIGHTS_BYTES).hexdigest()
    assert (first["lineage"]["job"], first["lineage"]["dataset"]) == ("job_1", "ds_1")


def test_a_reference_shows_that_version_alone(http, name):
    assert [each["version"] for each in http.get(f"/v1/models/{name}@1").json()["versions"]] == [1]
    assert [each["version"] for each in http.get(f"/v1/models/{name}@production").json()["versions"]] == [2]
    for ref in (f"{name}@9", f"{name}@nobody", f"{name}@", "..", "no such model", "%00"):
        assert http.get(f"/v1/models/{ref}").status_code == 404


def test_an_alias_is_put_on_a_version(http, name):
    url = f"/v1/models/{name}/aliases/production"
    put = http.put(url, json={"version": 1}).json()
    assert (put["model"], put["alias"], put["version"], put["canary"]) == (name, "production", 1, None)
    assert http.get(f"/v1/models/{name}").json()["aliases"] == {"production": 1}
    problem(http.put(url, json={"version": 9}), 422, "model_not_found")
    problem(http.put(url, json={"version": 0}), 422, "invalid_request")
    problem(http.put(url, json={"versoin": 1}), 422, "invalid_request")
    problem(http.put(url, content=b""), 400, "invalid_json")
    problem(http.put(f"/v1/models/{name}/aliases/7", json={"version": 1}), 422, "invalid_alias")
    problem(http.put("/v1/models/none/aliases/production", json={"version": 1}), 404, "model_not_found")


def test_models_are_pages_by_name(http, name):
    names, after = [], None
    while True:
        page = http.get("/v1/models", params={"limit": 1} | ({"after": after} if after else {})).json()
        names += [each["name"] for each in page["data"]]
        after = page["next"]
        if not page["has_more"]:
            break
    assert name in names
    assert names == sorted(set(names))


@pytest.mark.parametrize("kind", ["export", "evaluate", "train"])
def test_a_version_that_a_job_needs_is_not_deleted_until_that_has_ended(http, name, dataset, ledger, kind):
    asked: dict[str, dict[str, object]] = {
        "export": {"model": f"{name}@1", "format": "bundle"},
        "evaluate": {"model": f"{name}@1", "dataset": dataset, "split": "train"},
        "train": {
            "dataset": dataset,
            "recipe": "cifar10-fast",
            "overrides": {"network": "cifar/resnet8", "init": {"model": f"{name}@1"}},
        },
    }
    answer = http.post("/v1/jobs", json={"kind": kind, **asked[kind]})
    assert answer.status_code == 202, answer.text
    job_id = answer.json()["id"]
    url = f"/v1/models/{name}/versions/1"
    assert f"job {job_id} ({kind}, queued)" in str(problem(http.delete(url), 409, "version_in_use")["detail"])
    ledger.cancel(job_id)
    assert http.delete(url).status_code == 204
    told = problem(http.post(f"/v1/jobs/{job_id}/retry"), 409, "model_not_found", state="cancelled")
    assert f"{name}@1" in str(told["detail"])
    assert ledger.get(job_id).retried_as is None


def test_a_job_that_is_asked_for_while_its_version_is_being_deleted_is_refused(server, http, name, monkeypatch):
    """The deletion has looked through the jobs, and finds none; the request has found the version a moment before."""
    url = f"/v1/models/{name}/versions/1"
    submissions, delete = server.state.submissions, Catalog.delete
    asking, deleted = threading.Event(), threading.Event()
    find = submissions._version

    async def found(ref):
        version = await find(ref)
        asking.set()
        await anyio.to_thread.run_sync(deleted.wait, 20)
        return version

    def slowly(*args, **options) -> None:
        deleted.set()
        time.sleep(0.3)
        delete(*args, **options)

    monkeypatch.setattr(submissions, "_version", found)
    monkeypatch.setattr(Catalog, "delete", slowly)
    with ThreadPoolExecutor(1) as pool:
        body = {"kind": "export", "model": f"{name}@1", "format": "bundle"}
        asked = pool.submit(httpx.post, f"{server.url}/v1/jobs", json=body, timeout=30)
        assert asking.wait(20)
        assert http.delete(url).status_code == 204
        problem(asked.result(), 422, "model_not_found")
