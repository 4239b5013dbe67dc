"""What may be asked of a job that is there: each verb in each state, repeated, and refused in words."""

import asyncio
import threading
from uuid import uuid4

import pytest
from edge_kit import claimed, model_on_disk, problem, train
from samples import tiny_zip

from app.services.deletion import Deletion
from app.services.ledger import AsyncLedger
from jobs.answers import JobNotFound
from jobs.archive import archive
from jobs.ledger import Ledger
from jobs.model import JobError, Kind, Lane, State
from models.catalog import Catalog

DIED = JobError(code="crashed", message="it died")


@pytest.fixture
def queued(http, dataset, idle: Ledger) -> str:
    return str(train(http, dataset).json()["id"])


def post(http, job_id: str, verb: str, key: str | None = None):
    return http.post(f"/v1/jobs/{job_id}/{verb}", headers={"Idempotency-Key": key} if key else {})


def types(http, job_id: str) -> list[str]:
    page = http.get(f"/v1/jobs/{job_id}/events", headers={"Accept": "application/json"}).json()
    return [each["type"] for each in page["data"]]


def test_a_queued_job_is_paused_and_resumed_and_repeating_is_harmless(http, queued):
    for verb, state in (("pause", "paused"), ("resume", "queued")):
        for _ in range(2):
            answer = post(http, queued, verb)
            assert (answer.status_code, answer.json()["state"]) == (202, state)
    assert types(http, queued) == ["queued", "paused", "queued"]


def test_a_running_job_is_paused_by_its_worker_and_goes_on_where_it_was(http, queued, idle):
    claim = claimed(idle, queued)
    assert post(http, queued, "pause").json()["state"] == "pausing"
    idle.release(claim, crash=None)
    shown = http.get(f"/v1/jobs/{queued}").json()
    assert (shown["state"], shown["attempts"], shown["queue"]) == ("paused", 1, None)
    assert shown["seconds"] >= 0
    assert post(http, queued, "resume").json()["queue"] == {"position": 1}
    assert claimed(idle, queued).number == 2


def test_finish_and_checkpoint_are_orders_to_a_training_that_has_begun(http, queued, idle):
    problem(post(http, queued, "finish"), 409, "nothing_to_keep", state="queued")
    claim = claimed(idle, queued)
    for _ in range(2):
        assert post(http, queued, "checkpoint", key="once").status_code == 202
        assert post(http, queued, "finish").status_code == 202
    orders = idle.orders(claim)
    assert (orders.finish, orders.checkpoint) == (True, 1)
    assert types(http, queued) == ["queued", "running", "checkpoint_requested", "finish_requested"]


def test_what_is_publishing_can_only_succeed(http, queued, idle):
    claim = claimed(idle, queued)
    idle.begin_publishing(claim, {"artifact": "a"})
    for verb in ("cancel", "pause", "finish", "checkpoint"):
        problem(post(http, queued, verb), 409, "job_publishing", state="running")


@pytest.mark.parametrize("verb", ["pause", "resume", "finish", "checkpoint", "retry", "cancel"])
def test_a_wrong_state_is_a_409_that_says_the_state(http, queued, idle, verb):
    idle.succeed(claimed(idle, queued), {})
    body = problem(post(http, queued, verb), 409, "wrong_state", state="succeeded")
    assert "it is succeeded" in str(body["detail"])
    assert body["hint"]


def test_a_retry_is_one_new_job_that_both_records_name(http, queued, idle):
    idle.fail(claimed(idle, queued), DIED)
    answers = [post(http, queued, "retry") for _ in range(2)]
    new = answers[0].json()
    assert {(each.status_code, each.headers["location"]) for each in answers} == {(202, f"/v1/jobs/{new['id']}")}
    assert (new["state"], new["retry_of"], new["id"] == queued) == ("queued", queued, False)
    old = http.get(f"/v1/jobs/{queued}").json()
    assert (old["state"], old["retried_as"]) == ("failed", new["id"])
    assert new["spec"] == old["spec"]
    problem(post(http, new["id"], "retry"), 409, "wrong_state", state="queued")


def test_a_retry_goes_on_with_what_was_changed_and_without_what_was_asked_once(http, queued, idle):
    claim = claimed(idle, queued)
    http.patch(f"/v1/jobs/{queued}", json={"lr": 0.01, "patience": None, "priority": "low"})
    for verb in ("checkpoint", "finish"):
        post(http, queued, verb)
    idle.fail(claim, DIED)
    new = post(http, queued, "retry").json()
    assert (new["settings"], new["priority"], new["finish_requested"]) == ({"lr": 0.01, "patience": None}, "low", False)
    orders = claimed(idle, new["id"])
    assert idle.orders(orders).settings == {"lr": 0.01, "patience": None}
    assert (idle.orders(orders).version, idle.orders(orders).checkpoint) == (1, 0)


def test_a_retry_without_its_dataset_is_refused_at_once_but_one_that_was_made_is_told(http, dataset, idle):
    first, second = (str(train(http, dataset).json()["id"]) for _ in range(2))
    for job_id in (first, second):
        idle.cancel(job_id)
    made = post(http, first, "retry").json()["id"]
    idle.cancel(made)
    assert http.delete(f"/v1/datasets/{dataset}").status_code == 204
    body = problem(post(http, second, "retry"), 409, "dataset_not_found", state="cancelled")
    assert dataset in str(body["detail"])
    assert idle.get(second).retried_as is None
    assert post(http, first, "retry").json()["id"] == made


@pytest.mark.parametrize("verb", ["finish", "checkpoint"])
def test_only_a_training_is_finished(http, ledger, verb):
    job_id = ledger.submit(Kind.IMPORT, {"dataset": "ds_x"}).job_id
    assert "import" in str(problem(post(http, job_id, verb), 422, "not_for_kind")["detail"])
    ledger.cancel(job_id)


@pytest.mark.parametrize("verb", ["pause", "resume", "finish", "checkpoint", "retry"])
def test_every_verb_of_an_unknown_job_is_a_404(http, verb):
    problem(post(http, "job_none", verb), 404, "job_not_found")
    problem(http.patch("/v1/jobs/job_none", json={"priority": "low"}), 404, "job_not_found")
    problem(http.delete("/v1/jobs/job_none"), 404, "job_not_found")


def test_settings_of_a_training_are_changed_and_unchanged_values_are_no_event(http, queued, idle):
    claim = claimed(idle, queued)
    for _ in range(2):
        answer = http.patch(f"/v1/jobs/{queued}", json={"lr": 0.01, "patience": 3, "priority": "high"})
        assert (answer.status_code, answer.json()["settings"]) == (202, {"lr": 0.01, "patience": 3})
    assert answer.json()["priority"] == "high"
    assert http.patch(f"/v1/jobs/{queued}", json={"patience": None}).json()["settings"] == {
        "lr": 0.01,
        "patience": None,
    }
    assert idle.orders(claim).settings == {"lr": 0.01, "patience": None}
    assert types(http, queued) == ["queued", "running", "settings_changed", "settings_changed"]


@pytest.mark.parametrize(
    ("changes", "code", "pointer"),
    [
        ({"lr": -1}, "invalid_settings", "#/lr"),
        ({"lr": None}, "invalid_settings", "#/lr"),
        ({"epochs": 0}, "invalid_settings", "#/epochs"),
        ({"epochs": 1}, "invalid_settings", "#"),  # less than the recipe's warm-up
        ({"epochs": 2}, "invalid_settings", "#/epochs"),  # epoch 3 has begun
        ({"patience": 0}, "invalid_settings", "#/patience"),
        ({"lr": "fast"}, "invalid_request", "#/lr"),
        ({"lr": True}, "invalid_request", "#/lr"),
        ({"lr": "0.1"}, "invalid_request", "#/lr"),
        ({"epochs": 4.0}, "invalid_request", "#/epochs"),
        ({"priority": None}, "invalid_request", "#/priority"),
        ({"priority": "top"}, "invalid_request", "#/priority"),
        ({"momentum": 0.5}, "invalid_request", "#/momentum"),
        ({}, "invalid_request", "#"),
    ],
)
def test_an_impossible_change_is_a_422_that_points_at_the_field_and_says_what_would_do(
    *, http, queued, idle, changes, code, pointer
):
    idle.emit(claimed(idle, queued), 1, [], patch={"progress": {"epoch": 3}})
    body = problem(http.patch(f"/v1/jobs/{queued}", json=changes), 422, code)
    assert [each["pointer"] for each in body["errors"]] == [pointer]
    assert body["hint"]
    assert http.get(f"/v1/jobs/{queued}").json()["settings"] == {}


def test_an_import_has_a_priority_and_no_learning_rate(http, ledger):
    job_id = ledger.submit(Kind.IMPORT, {"dataset": "ds_x"}).job_id
    body = problem(http.patch(f"/v1/jobs/{job_id}", json={"lr": 0.1}), 422, "not_for_kind")
    assert body["errors"][0]["pointer"] == "#/lr"
    assert http.patch(f"/v1/jobs/{job_id}", json={"priority": "low"}).json()["priority"] == "low"
    ledger.cancel(job_id)
    problem(http.patch(f"/v1/jobs/{job_id}", json={"priority": "high"}), 409, "wrong_state", state="cancelled")


def test_priorities_order_the_queue_and_lists_show_the_places(http, dataset, idle):
    made = {name: train(http, dataset, priority=name).json()["id"] for name in ("low", "normal", "high")}
    page = http.get("/v1/jobs", params={"state": "queued", "kind": "train", "limit": 3}).json()["data"]
    assert {each["id"]: each["queue"]["position"] for each in page} == {
        made["high"]: 1,
        made["normal"]: 2,
        made["low"]: 3,
    }
    http.patch(f"/v1/jobs/{made['low']}", json={"priority": "high"})
    assert http.get(f"/v1/jobs/{made['low']}").json()["queue"] == {"position": 1}  # it has waited longest
    only = http.get("/v1/jobs", params={"priority": "normal", "state": "queued,paused", "kind": "train"}).json()
    assert [each["id"] for each in only["data"]] == [made["normal"]]


def test_a_verb_races_with_the_end_and_both_answers_are_true(http, dataset, idle):
    for _ in range(10):
        job_id = str(train(http, dataset).json()["id"])
        claim = claimed(idle, job_id)
        ending = threading.Thread(target=idle.succeed, args=(claim, {}))
        ending.start()
        answer = post(http, job_id, "cancel")
        ending.join()
        final = http.get(f"/v1/jobs/{job_id}").json()["state"]
        assert (answer.status_code, final) in {(202, "cancelled"), (409, "succeeded")}
        assert types(http, job_id)[-1] == final


class TestDeletion:
    def test_an_ended_job_goes_with_its_folder_its_history_and_its_place_in_lists(self, server, http, queued, idle):
        problem(http.delete(f"/v1/jobs/{queued}"), 409, "job_not_ended", state="queued")
        claim = claimed(idle, queued)
        problem(http.delete(f"/v1/jobs/{queued}"), 409, "job_not_ended", state="running")
        (server.layout.job(queued) / "claim-1" / "step-1").mkdir(parents=True)
        idle.fail(claim, DIED)
        answer = http.delete(f"/v1/jobs/{queued}")
        assert (answer.status_code, answer.content) == (204, b"")
        assert not server.layout.job(queued).exists()
        problem(http.get(f"/v1/jobs/{queued}"), 404, "job_not_found")
        problem(http.get(f"/v1/jobs/{queued}/events"), 404, "job_not_found")
        assert queued not in http.get("/v1/jobs", params={"limit": 200}).text
        archive(idle, server.layout)
        assert not server.layout.job(queued).exists()

    def test_one_that_only_the_disk_knows_goes_too(self, server, http, queued, idle):
        idle.fail(claimed(idle, queued), DIED)
        archive(idle, server.layout)
        idle.delete(queued)
        assert http.get(f"/v1/jobs/{queued}").json()["state"] == "failed"
        problem(post(http, queued, "retry"), 409, "job_archived", state="failed")
        assert http.delete(f"/v1/jobs/{queued}").status_code == 204
        problem(http.get(f"/v1/jobs/{queued}"), 404, "job_not_found")

    @pytest.mark.parametrize("archived", [True, False])
    def test_a_deletion_that_was_cut_off_is_completed_by_asking_again(self, server, http, queued, idle, archived):
        idle.fail(claimed(idle, queued), DIED)
        if archived:
            archive(idle, server.layout)
        folder = server.layout.job(queued)
        folder.mkdir(exist_ok=True)
        (folder / "deleted").touch()
        idle.delete(queued)
        problem(http.get(f"/v1/jobs/{queued}"), 404, "job_not_found")
        assert http.delete(f"/v1/jobs/{queued}").status_code == 204
        assert not folder.exists()
        problem(http.delete(f"/v1/jobs/{queued}"), 404, "job_not_found")

    def test_a_deletion_that_was_cut_off_is_seen_by_readers_and_completed_by_a_server(self, server, http, queued, idle):
        idle.fail(claimed(idle, queued), DIED)
        folder = server.layout.job(queued)
        folder.mkdir(exist_ok=True)
        (folder / "deleted").touch()
        problem(http.get(f"/v1/jobs/{queued}"), 404, "job_not_found")
        ledger = AsyncLedger(str(server.state.settings.redis_url))
        asyncio.run(Deletion(ledger, server.layout, Catalog(server.layout.models)).complete())
        ledger.close()
        assert not folder.exists()
        with pytest.raises(JobNotFound):
            idle.get(queued)

    def test_a_training_stays_as_long_as_its_model(self, server, http, dataset, idle):
        name = f"m{uuid4().hex[:8]}"
        job_id = str(train(http, dataset, register_as=name).json()["id"])
        model_on_disk(server.layout, name, job_id)
        idle.succeed(claimed(idle, job_id), {"model": name, "version": 1})
        body = problem(http.delete(f"/v1/jobs/{job_id}"), 409, "job_has_model", state="succeeded")
        assert f"{name}@1" in str(body["detail"])
        assert http.get(f"/v1/jobs/{job_id}").json()["links"]["model"] == f"/v1/models/{name}@1"

    def test_what_a_retry_may_need_stays_until_that_has_ended(self, server, http, queued, idle):
        """Its checkpoint, or its upload: the retry finds them in the folder of the first."""
        idle.fail(claimed(idle, queued), DIED)
        second = post(http, queued, "retry").json()["id"]
        body = problem(http.delete(f"/v1/jobs/{queued}"), 409, "job_retried", state="failed")
        assert second in str(body["detail"])
        post(http, second, "cancel")
        archive(idle, server.layout)
        third = post(http, second, "retry").json()["id"]
        assert third in str(problem(http.delete(f"/v1/jobs/{queued}"), 409, "job_retried", state="failed")["hint"])
        post(http, third, "cancel")
        for job_id in (queued, second, third):
            assert http.delete(f"/v1/jobs/{job_id}").status_code == 204

    def test_an_import_stays_as_long_as_its_dataset(self, http, ledger):
        made = http.post("/v1/datasets", content=tiny_zip()).json()
        job_id = made["job"]["id"]
        ledger.cancel(job_id)
        problem(http.delete(f"/v1/jobs/{job_id}"), 409, "job_has_dataset", state="cancelled")
        assert http.delete(f"/v1/datasets/{made['id']}").status_code == 204
        assert http.delete(f"/v1/jobs/{job_id}").status_code == 204


def test_every_wrong_filter_of_a_list_is_named(http):
    body = problem(http.get("/v1/jobs", params={"state": "queued,happy"}), 422, "invalid_request")
    assert (body["errors"][0]["pointer"], "happy" in str(body["detail"])) == ("/query/state", True)
    body = problem(http.get("/v1/jobs", params={"priority": "top"}), 422, "invalid_request")
    assert body["errors"][0]["pointer"] == "/query/priority"


def test_the_cpu_lane_has_its_own_queue(http, ledger, queued):
    while (claim := ledger.claim(Lane.CPU, owner="test", token=uuid4().hex)) is not None:
        ledger.fail(claim, DIED)
    made = http.post("/v1/datasets", content=tiny_zip()).json()
    job = http.get(f"/v1/jobs/{made['job']['id']}").json()
    assert (job["state"], job["queue"]) == (State.QUEUED, {"position": 1})
