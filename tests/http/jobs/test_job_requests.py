"""POST /v1/jobs: every kind, its terms, its webhook, and one job for one Idempotency-Key."""

import base64
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import httpx
import pytest
from edge_kit import dataset_on_disk, model_on_disk, problem, train
from http_process import http_process
from samples import tiny_zip
from waiting import wait_for

HOOK = {"url": "https://example.org/hook"}


def test_terms_are_kept_and_shown(http, dataset):
    job = train(http, dataset, priority="high", max_seconds=60, webhook={**HOOK, "events": ["paused"]}).json()
    assert (job["priority"], job["max_seconds"], job["seconds"], job["attempts"]) == ("high", 60, 0, 0)
    shown = http.get(job["links"]["self"]).json()
    assert shown["webhook"] == {**HOOK, "events": ["paused"]}
    assert shown["links"]["deliveries"] == f"/v1/jobs/{job['id']}/deliveries"
    assert "max_seconds" not in job["spec"]


def test_the_answer_to_a_submission_alone_tells_the_secret_and_tells_it_again_to_the_same_request(http, dataset):
    key = uuid4().hex
    first, again = (train(http, dataset, webhook=HOOK, key=key).json() for _ in range(2))
    assert first == {**again, "queue": first["queue"]}
    secret = first["webhook"]["secret"]
    assert len(base64.b64decode(secret.removeprefix("whsec_"))) == 32
    assert secret not in http.get(f"/v1/jobs/{first['id']}").text
    assert secret not in http.get("/v1/jobs").text
    own = "whsec_" + base64.b64encode(bytes(24)).decode()
    assert train(http, dataset, webhook={**HOOK, "secret": own}).json()["webhook"]["secret"] == own


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"priority": "top"}, "#/priority"),
        ({"max_seconds": 0}, "#/max_seconds"),
        ({"webhook": {"url": "ftp://example.org"}}, "#/webhook/url"),
        ({"webhook": {"url": "https://u:p@example.org"}}, "#/webhook/url"),
        ({"webhook": {"url": "https://"}}, "#/webhook/url"),
        ({"webhook": {**HOOK, "events": ["cancelling"]}}, "#/webhook/events/0"),
        ({"webhook": {**HOOK, "events": []}}, "#/webhook/events"),
        ({"webhook": {**HOOK, "secret": "whsec_c2hvcnQ="}}, "#/webhook/secret"),
        ({"webhook": {**HOOK, "secret": "plain"}}, "#/webhook/secret"),
        ({"webhook": {**HOOK, "retries": 9}}, "#/webhook/retries"),
    ],
)
def test_wrong_terms_are_pointed_at(http, dataset, change, pointer):
    body = problem(train(http, dataset, **change), 422, "invalid_request")
    assert body["errors"][0]["pointer"] == pointer


def test_a_wrong_field_is_told_in_plain_words_and_by_the_fields_beside_it(http, dataset):
    body = problem(train(http, dataset, webhook={**HOOK, "events": ["cancelling"]}), 422, "invalid_request")
    assert "State." not in str(body)
    body = problem(train(http, dataset, webhook={**HOOK, "events": []}), 422, "invalid_request")
    assert "Tuple" not in str(body)
    body = problem(train(http, dataset, webhook={**HOOK, "secrets": "x"}), 422, "invalid_request")
    assert str(body["hint"]).startswith("Did you mean `secret`? Fields: url, events, secret")
    body = problem(train(http, dataset, webhook={**HOOK, "secret": "x"}), 422, "invalid_request")
    assert str(body["detail"]).startswith("#/webhook/secret: a secret is")
    body = problem(http.patch("/v1/jobs/job_x", json=[]), 422, "invalid_request")
    assert "JSON object" in str(body["detail"])


def test_a_repetition_that_comes_after_the_jobs_deletion_makes_no_second_job(http, dataset):
    key = uuid4().hex
    job_id = train(http, dataset, key=key).json()["id"]
    http.post(f"/v1/jobs/{job_id}/cancel")
    assert http.delete(f"/v1/jobs/{job_id}").status_code == 204
    assert job_id in str(problem(train(http, dataset, key=key), 409, "job_deleted")["detail"])


def test_a_repeated_request_is_its_job_also_when_the_dataset_is_gone(server, http, dataset):
    key = uuid4().hex
    job_id = train(http, dataset, key=key).json()["id"]
    http.post(f"/v1/jobs/{job_id}/cancel")
    assert http.delete(f"/v1/datasets/{dataset}").status_code == 204
    again = train(http, dataset, key=key)
    assert (again.status_code, again.json()["id"]) == (202, job_id)
    problem(train(http, dataset, key=key, priority="low"), 422, "idempotency_conflict")
    problem(train(http, dataset), 422, "dataset_not_found")


def test_a_webhook_to_a_private_address_is_refused_at_once(http, dataset):
    body = problem(train(http, dataset, webhook={"url": "http://10.0.0.1/x"}), 422, "webhook_refused")
    assert body["errors"][0]["pointer"] == "#/webhook/url"


def test_an_evaluation_and_an_export_name_the_version_that_the_reference_means_now(server, http, dataset):
    name = f"m{uuid4().hex[:8]}"
    model_on_disk(server.layout, name, "job_elsewhere")
    made = http.post("/v1/jobs", json={"kind": "evaluate", "model": name, "dataset": dataset, "split": "train"})
    assert (made.status_code, made.json()["kind"]) == (202, "evaluate")
    assert made.json()["spec"] == {"model": f"{name}@1", "dataset": dataset, "split": "train"}
    problem(http.delete(f"/v1/datasets/{dataset}"), 409, "dataset_in_use")
    made = http.post("/v1/jobs", json={"kind": "export", "model": f"{name}@production"})
    assert (made.status_code, made.json()["spec"]["model"]) == (202, f"{name}@1")


@pytest.mark.parametrize(
    ("asked", "code", "pointer"),
    [
        ({"kind": "export", "model": "nothing"}, "model_not_found", "#/model"),
        ({"kind": "evaluate", "model": "nothing@3", "dataset": "ds_x"}, "model_not_found", "#/model"),
        ({"kind": "export", "model": "m", "format": "doc"}, "invalid_request", "#/format"),
        ({"kind": "evaluate", "model": "m"}, "invalid_request", "#/dataset"),
        ({"kind": 7}, "invalid_request", "#/kind"),
        ([], "invalid_request", "#/kind"),
    ],
)
def test_a_wrong_request_of_each_kind_is_pointed_at(http, asked, code, pointer):
    body = problem(http.post("/v1/jobs", json=asked), 422, code)
    assert pointer in [each["pointer"] for each in body["errors"]]


def insist(http: httpx.Client, dataset: str, key: str) -> httpx.Response:
    """As a client does that is told to come back: the same request under the same key."""

    def asked() -> httpx.Response | None:
        answer = train(http, dataset, key=key)
        return None if answer.status_code == 503 else answer

    return wait_for(asked)


def at_once(calls: list[Callable[[], httpx.Response]]) -> list[httpx.Response]:
    with ThreadPoolExecutor(16) as pool:
        return [each.result() for each in [pool.submit(call) for call in calls]]


def test_concurrent_pairs_under_one_key_are_one_job_each(http, dataset):
    pairs = [uuid4().hex for _ in range(25)]
    answers = at_once([lambda key=key: insist(http, dataset, key) for key in pairs for _ in range(2)])
    assert {each.status_code for each in answers} == {202}
    found = [each.json()["id"] for each in answers]
    assert all(first == second for first, second in zip(found[::2], found[1::2], strict=True))
    assert len(set(found)) == len(pairs)


def test_concurrent_uploads_under_one_key_are_one_dataset_and_one_import(http):
    key = uuid4().hex
    upload = lambda: http.post("/v1/datasets", content=tiny_zip(), headers={"Idempotency-Key": key})  # noqa: E731 - short
    answers = [*at_once([upload] * 6), upload()]
    assert {each.status_code for each in answers} <= {202, 409}  # 409: the first is just arriving
    assert answers[-1].status_code == 202
    assert len({each.text for each in answers if each.status_code == 202}) == 1
    other = http.post("/v1/datasets", content=tiny_zip(b"other"), headers={"Idempotency-Key": key})
    problem(other, 422, "idempotency_conflict")


def test_a_server_killed_between_the_writing_and_the_answer_answers_with_the_same_job(layout, redis_url):
    dataset, key = dataset_on_disk(layout, "ds_pets"), uuid4().hex
    dying = http_process(layout, redis_url, RESNETD_FAULT="submit.written:1:kill")
    with dying as (running, url), httpx.Client(base_url=url, timeout=30) as http:
        with pytest.raises(httpx.TransportError):
            train(http, dataset, key=key)
        assert running.wait(10) == -9
    with http_process(layout, redis_url) as (_, url), httpx.Client(base_url=url, timeout=30) as http:
        before = http.get("/v1/jobs", params={"limit": 1}).json()["data"][0]["id"]
        assert train(http, dataset, key=key).json()["id"] == before
        problem(train(http, dataset, key=key, priority="low"), 422, "idempotency_conflict")
