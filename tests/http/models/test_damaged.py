"""A dataset or a model version whose description cannot be read: it says so, it can go, and it hides no other."""

import asyncio
from uuid import uuid4

import pytest
from edge_kit import IMAGE, dataset_on_disk, model_on_disk, problem, serving, train
from samples import tiny_zip

from app.inference.client import Engines
from jobs.model import Kind

CUT_OFF = '{"id": "ds_'


def test_a_damaged_dataset_has_failed_and_can_be_deleted_and_the_others_are_listed(alone):
    with serving(alone) as server:
        whole, damaged = (dataset_on_disk(server.layout, f"ds_{uuid4().hex}") for _ in range(2))
        (server.layout.dataset(damaged) / "dataset.json").write_text(CUT_OFF)
        listed = {each["id"]: each for each in server.http.get("/v1/datasets").json()["data"]}
        assert {name: each["status"] for name, each in listed.items()} == {whole: "ready", damaged: "failed"}
        shown = server.http.get(f"/v1/datasets/{damaged}").json()
        assert shown == listed[damaged]
        assert (shown["error"]["code"], shown["classes"]) == ("dataset_damaged", None)
        assert "dataset.json" in shown["error"]["message"]
        problem(train(server.http, damaged), 409, "dataset_failed")
        assert server.http.delete(f"/v1/datasets/{damaged}").status_code == 204
        assert not server.layout.dataset(damaged).exists()


def test_an_upload_whose_record_is_damaged_has_failed_and_can_be_deleted(alone, ledger):
    with serving(alone) as server:
        made = server.http.post("/v1/datasets", content=tiny_zip()).json()
        (server.layout.dataset(made["id"]) / "request.json").write_text(CUT_OFF)
        (shown,) = server.http.get("/v1/datasets").json()["data"]
        assert (shown["id"], shown["status"], shown["error"]["code"]) == (made["id"], "failed", "dataset_damaged")
        ledger.cancel(made["job"]["id"])
        assert server.http.delete(f"/v1/datasets/{made['id']}").status_code == 204


def test_a_damaged_version_says_so_and_can_be_deleted_and_the_others_are_shown(alone):
    with serving(alone) as server:
        http = server.http
        model_on_disk(server.layout, "toy", "job_toy")
        model_on_disk(server.layout, "other", "job_other")
        damaged = server.layout.models / "toy" / "2"
        damaged.mkdir()
        (damaged / "model.json").write_text(CUT_OFF)
        assert http.put("/v1/models/toy/aliases/production", json={"version": 1}).status_code == 200
        assert [each["name"] for each in http.get("/v1/models").json()["data"]] == ["other", "toy"]
        assert [each["version"] for each in http.get("/v1/models/toy").json()["versions"]] == [1]
        for path in ("", "/labels", "/metrics", "/card"):
            assert "toy@2" in str(problem(http.get(f"/v1/models/toy@2{path}"), 409, "model_damaged")["detail"])
        problem(http.get("/v1/models/toy/versions/2/download"), 409, "model_damaged")
        asked = {"kind": "evaluate", "model": "toy@2", "split": "train"}
        asked["dataset"] = dataset_on_disk(server.layout, "ds_pets")
        problem(http.post("/v1/jobs", json=asked), 409, "model_damaged")
        assert http.delete("/v1/models/toy/versions/2").status_code == 204
        assert not damaged.exists()


@pytest.mark.parametrize("content", [CUT_OFF, "[]", '{"production": "newest"}', '{"aliases": {"production": {}}}'])
def test_aliases_that_cannot_be_read_are_a_409_of_their_model_and_hide_no_other(alone, content):
    with serving(alone) as server:
        http = server.http
        model_on_disk(server.layout, "toy", "job_toy")
        model_on_disk(server.layout, "other", "job_other")
        (server.layout.models / "toy" / "aliases.json").write_text(content)
        assert [each["name"] for each in http.get("/v1/models").json()["data"]] == ["other"]
        for path in ("", "@1", "/aliases", "@1/card"):
            detail = problem(http.get(f"/v1/models/toy{path}"), 409, "model_damaged")["detail"]
            assert "the aliases.json of toy is damaged" in str(detail)
        asked = http.put("/v1/models/toy/aliases/production", json={"version": 1})
        problem(asked, 409, "model_damaged")
        assert http.post("/v1/models/toy:classify", content=IMAGE).status_code == 200  # as its engines say
        assert asyncio.run(Engines(server.layout, alone.model_copy(update={"model": "toy"})).health()).ready is False


def test_a_classification_by_a_damaged_model_is_a_409_on_the_short_way_too(server):
    problem(server.http.post("/v1/models/damaged:classify", content=IMAGE), 409, "model_damaged")
    problem(server.http.post("/v1/classify?model=damaged", content=IMAGE), 409, "model_damaged")


def test_a_job_is_deleted_also_where_a_version_of_its_model_is_damaged(alone, ledger):
    with serving(alone) as server:
        model_on_disk(server.layout, "toy", "job_toy")
        (server.layout.models / "toy" / "1" / "model.json").write_text(CUT_OFF)
        job_id = ledger.submit(Kind.TRAIN, {"dataset": "ds_x", "register_as": "toy"}).job_id
        ledger.cancel(job_id)
        assert server.http.delete(f"/v1/jobs/{job_id}").status_code == 204
