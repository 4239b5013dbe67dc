"""POST /v1/models: a model from elsewhere, from its bytes to its job."""

import os

import pytest
from edge_kit import Server, problem, serving

from app.services.upload_parts import sweep
from app.services.uploads import Upload
from jobs.archive import archive
from jobs.ledger import Ledger
from jobs.model import Kind, Priority, State

CLASSES = '["cat", "dog"]'


def test_a_raw_body_becomes_a_job_that_finds_it(http, server, ledger):
    query = {"name": "mine", "network": "cifar/resnet20", "classes": CLASSES, "alias": "production"}
    answer = http.put("/v1/models", params=query | {"preprocessing": '{"resize": 40}'}, content=b"bytes")
    assert answer.status_code == 202
    body = answer.json()
    assert answer.headers["location"] == f"/v1/jobs/{body['id']}"
    job = ledger.get(body["id"])
    assert (job.kind, job.state) == (Kind.ADOPT, State.QUEUED)
    assert job.spec == {
        "register_as": "mine",
        "alias": "production",
        "network": "cifar/resnet20",
        "classes": ["cat", "dog"],
        "preprocessing": {"resize": 40},
        "upload": job.id,
        "filename": None,
    }
    assert (server.layout.job(job.id) / "upload").read_bytes() == b"bytes"


def test_a_form_says_the_same_with_its_fields_and_classes_may_be_a_file(http, server, ledger):
    files = {"file": ("net.pth", b"PK"), "classes": ("classes.txt", b"cat\ndog\n\n")}
    body = http.post("/v1/models", data={"name": "mine"}, files=files).json()
    assert ledger.get(body["id"]).spec == {
        "register_as": "mine",
        "classes": ["cat", "dog"],
        "upload": body["id"],
        "filename": "net.pth",
    }


def test_names_in_a_file_of_an_editor_are_those_that_a_dataset_has(http, ledger):
    for text in ("\ufeffKa\u0308tzchen\nHund\n", '\ufeff["Ka\u0308tzchen", "Hund"]'):
        files = {"file": ("net.pth", b"PK"), "classes": ("classes.txt", text.encode())}
        body = http.post("/v1/models", data={"name": "mine"}, files=files).json()
        assert ledger.get(body["id"]).spec["classes"] == ["K\u00e4tzchen", "Hund"]


def test_a_file_of_names_in_another_encoding_is_refused(http, server):
    files = {"file": ("net.pth", b"PK"), "classes": ("classes.txt", "K\u00e4tzchen\nHund".encode("latin-1"))}
    body = problem(http.post("/v1/models", data={"name": "mine"}, files=files), 422, "not_utf8")
    assert "'classes' is not UTF-8 text" in body["detail"]
    assert not list(server.layout.uploads.glob("job_*"))


def test_its_job_has_the_priority_and_the_time_that_the_query_or_the_form_names(http, ledger):
    terms = {"name": "mine", "priority": "high", "max_seconds": "90"}
    for sent in ({"params": terms, "content": b"bytes"}, {"data": terms, "files": {"file": ("a.pth", b"PK")}}):
        answer = http.post("/v1/models", **sent)
        assert (answer.json()["priority"], answer.json()["max_seconds"]) == ("high", 90.0)
        job = ledger.get(answer.json()["id"])
        assert (job.priority, job.max_seconds) == (Priority.HIGH, 90.0)
        assert not {"priority", "max_seconds"} & set(job.spec)


@pytest.mark.parametrize(
    ("query", "pointer", "said"),
    [
        ({}, "/query/name", "needs a name"),
        ({"name": "Mine"}, "#/name", ""),
        ({"name": "mine", "network": "cifar/resnet21"}, "/query/network", "'cifar/resnet21'"),
        ({"name": "mine", "classes": '["cat"]'}, "#/classes", ""),
        ({"name": "mine", "classes": '["cat", "cat"]'}, "#/classes", "named twice"),
        ({"name": "mine", "classes": '["cat", "d\\u0007og"]'}, "#/classes", "control character"),
        ({"name": "mine", "classes": '["K\u00e4fer", "Ka\u0308fer"]'}, "#/classes", "named twice"),
        ({"name": "mine", "classes": '["cat"'}, "/query/classes", "not JSON"),
        ({"name": "mine", "preprocessing": '{"size": 3}'}, "#/preprocessing/size", ""),
        ({"name": "mine", "preprocessing": '{"std": [0]}'}, "#/preprocessing/std/0", ""),
        ({"name": "mine", "alias": "7"}, "#/alias", "must not be a number"),
        ({"name": "mine", "priority": "urgent"}, "/query/priority", "'high', 'normal' or 'low'"),
        ({"name": "mine", "max_seconds": 0}, "/query/max_seconds", "greater than 0"),
    ],
)
def test_what_makes_no_sense_is_refused_at_its_field_and_leaves_nothing(http, server, query, pointer, said):
    answer = http.put("/v1/models", params=query, content=b"bytes")
    body = problem(answer, 422, "invalid_request")
    assert body["errors"][0]["pointer"] == pointer
    assert said in str(body["detail"])
    assert body["hint"]
    assert not list(server.layout.uploads.glob("job_*"))


def test_the_nearest_network_is_named(http):
    query = {"name": "mine", "network": "cifar/resnet21"}
    assert "'cifar/resnet" in http.put("/v1/models", params=query, content=b"x").json()["hint"]
    problem(http.put("/v1/models?name=m&netwrok=x", content=b"x"), 422, "invalid_request")


def test_bodies_without_a_model_are_refused(http):
    problem(http.put("/v1/models?name=mine", content=b""), 422, "empty_upload")
    problem(http.post("/v1/models", data={"name": "mine"}, files={"name": ("n", b"x")}), 422, "no_file")
    problem(http.post("/v1/models", files={"a": ("a", b"x"), "b": ("b", b"x")}), 422, "too_many_files")
    problem(http.post("/v1/models", data={"nmae": "x"}, files={"file": ("f", b"x")}), 422, "unknown_field")
    long = {"name": "x" * 300}
    problem(http.post("/v1/models", data=long, files={"file": ("f", b"x")}), 422, "field_too_long")


def test_a_model_that_is_too_large_is_refused_before_it_is_read(alone):
    with serving(alone.model_copy(update={"max_model_bytes": 100})) as server:
        answer = server.http.put("/v1/models?name=m", content=b"x" * 101)
        assert "RESNETD_MAX_MODEL_BYTES is 100" in str(problem(answer, 413, "body_too_large")["hint"])


def test_the_same_key_and_request_is_the_same_job_and_another_request_is_refused(http):
    headers = {"Idempotency-Key": os.urandom(8).hex()}
    first = http.put("/v1/models?name=mine", content=b"bytes", headers=headers).json()["id"]
    assert http.put("/v1/models?name=mine", content=b"bytes", headers=headers).json()["id"] == first
    problem(http.put("/v1/models?name=mine", content=b"other", headers=headers), 422, "idempotency_conflict")
    problem(http.put("/v1/models?name=other", content=b"bytes", headers=headers), 422, "idempotency_conflict")


def test_a_repetition_is_told_that_the_file_is_still_being_written_and_learns_of_a_job_that_has_taken_it(
    http, server, monkeypatch
):
    asked = {"params": {"name": "mine"}, "content": b"bytes", "headers": {"Idempotency-Key": os.urandom(8).hex()}}
    first = http.put("/v1/models", **asked)
    upload = server.layout.job(first.json()["id"]) / "upload"
    hidden = upload.rename(upload.with_name(".hidden"))
    monkeypatch.setattr("app.services.uploads._SETTLING_SECONDS", 0.1)
    problem(http.put("/v1/models", **asked), 503, "upload_in_progress")
    hidden.unlink()
    upload.with_name("spec.json").write_text("{}")  # as its job's process finds it
    again = http.put("/v1/models", **asked)
    assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])


def test_a_file_whose_job_was_never_handed_in_gets_it_at_the_next_start(alone, ledger: Ledger):
    with serving(alone) as server:
        job_id = server.http.put("/v1/models?name=mine&priority=low", content=b"bytes").json()["id"]
        spec = ledger.get(job_id).spec
    ledger.redis.delete(f"rn:job:{job_id}", f"rn:idempotency:upload:{job_id}")
    with serving(alone) as server:
        answer = server.http.get(f"/v1/jobs/{job_id}")
        while answer.status_code == 404:
            answer = server.http.get(f"/v1/jobs/{job_id}")
        assert (answer.json()["spec"], answer.json()["priority"]) == (spec, "low")


def test_what_a_dead_upload_left_is_swept_and_what_lives_or_was_taken_stays(server: Server):
    layout = server.layout

    def begin(name: str) -> Upload:
        return Upload(layout, name, repeatable=True, folder=layout.job(name))

    dead, live = begin("job_dead"), begin("job_live")
    layout.job("job_dead").mkdir()
    (layout.job("job_dead") / "request.json").write_text("{}")
    taken = begin("job_taken")
    layout.job("job_taken").mkdir()
    (layout.job("job_taken") / "record.json").write_text("{}")
    for each in (dead, taken):
        os.close(each._fd)  # as when its process dies
    sweep(layout)
    assert [layout.job(name).exists() for name in ("job_dead", "job_taken")] == [False, True]
    assert [part.name.partition(".")[0] for part in layout.uploads.glob("job_*.part")] == ["job_live"]
    live.close()


def test_an_adoption_is_not_asked_for_as_other_jobs_are(http):
    body = problem(http.post("/v1/jobs", json={"kind": "adopt"}), 422, "invalid_request")
    assert "POST /v1/models" in str(body["hint"])


def test_a_job_with_its_upload_is_deleted_when_it_has_ended(http, server, ledger):
    job_id = http.put("/v1/models?name=mine", content=b"bytes").json()["id"]
    problem(http.delete(f"/v1/jobs/{job_id}"), 409, "job_not_ended", state="queued")
    ledger.cancel(job_id)
    archive(ledger, server.layout)
    assert http.delete(f"/v1/jobs/{job_id}").status_code == 204
    assert not server.layout.job(job_id).exists()
