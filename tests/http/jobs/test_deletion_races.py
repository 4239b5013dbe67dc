"""Deletions beside other requests: what is tried again or asked for again at the same time loses nothing."""

import asyncio
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from edge_kit import Server, claimed, problem, train
from samples import tiny_zip

from app.problems import ConflictError
from app.services.adoptions import AdoptionRecord, Adoptions
from app.services.deletion import Deletion
from app.services.jobs import Jobs
from app.services.ledger import AsyncLedger
from app.services.uploads import Upload
from jobs.answers import JobNotFound
from jobs.ledger import Ledger
from jobs.model import JobError, State
from models.catalog import Catalog

DIED = JobError(code="crashed", message="it died")


def deleting(server: Server, call) -> None:
    """Call with a Deletion of another process on the same data directory."""

    async def main() -> None:
        ledger = AsyncLedger(str(server.state.settings.redis_url))
        try:
            await call(Deletion(ledger, server.layout, Catalog(server.layout.models)))
        finally:
            ledger.close()

    asyncio.run(main())


def brought(http, key: str | None = None) -> str:
    headers = {"Idempotency-Key": key} if key else {}
    return str(http.put("/v1/models?name=mine", content=b"bytes", headers=headers).json()["id"])


def test_a_completion_that_comes_late_leaves_what_came_to_the_same_place_since(server, http, ledger, monkeypatch):
    job_id = brought(http)
    monkeypatch.setattr(Deletion, "_marked", lambda _: [job_id])  # as it was a moment ago
    deleting(server, Deletion.complete)
    assert (server.layout.job(job_id) / "upload").read_bytes() == b"bytes"
    assert http.get(f"/v1/jobs/{job_id}").json()["state"] == "queued"


def test_a_deletion_that_the_ledger_refuses_is_undone(server, http, ledger):
    job_id = brought(http)

    async def delete(deletion: Deletion) -> None:
        with pytest.raises(ConflictError) as refused:
            await deletion.run(job_id)
        assert refused.value.code == "job_not_ended"

    deleting(server, delete)
    assert {each.name for each in server.layout.job(job_id).iterdir()} == {"request.json", "upload"}
    assert http.get(f"/v1/jobs/{job_id}").json()["state"] == "queued"
    (server.layout.job(job_id) / "deleted").touch()  # and one that was cut off before the ledger was asked
    deleting(server, Deletion.complete)
    assert http.get(f"/v1/jobs/{job_id}").json()["state"] == "queued"


def test_what_a_retry_needs_stays_when_both_are_asked_for_at_once(server, http, dataset, idle: Ledger, monkeypatch):
    job_id = str(train(http, dataset).json()["id"])
    idle.fail(claimed(idle, job_id), DIED)
    check = Deletion.check

    async def slow(deletion, job) -> None:
        await check(deletion, job)
        if job.retried_as is None:
            idle.retry(job_id)

    monkeypatch.setattr(Deletion, "check", slow)
    problem(http.delete(f"/v1/jobs/{job_id}"), 409, "job_retried", state="failed")
    shown = http.get(f"/v1/jobs/{job_id}").json()
    assert (shown["state"], shown["retried_as"] is None) == ("failed", False)
    idle.cancel(shown["retried_as"])
    assert http.delete(f"/v1/jobs/{job_id}").status_code == 204


def test_a_job_whose_deletion_has_begun_is_in_no_list(server, http, dataset, idle):
    job_id = str(train(http, dataset).json()["id"])
    idle.fail(claimed(idle, job_id), DIED)
    assert job_id in http.get("/v1/jobs", params={"limit": 200}).text
    server.layout.job(job_id).mkdir(exist_ok=True)
    (server.layout.job(job_id) / "deleted").touch()
    problem(http.get(f"/v1/jobs/{job_id}"), 404, "job_not_found")
    for more in ({}, {"state": "failed"}, {"dataset": dataset}):
        assert job_id not in http.get("/v1/jobs", params={"limit": 200, **more}).text


def test_a_retry_of_an_adoption_whose_upload_is_gone_is_refused_at_once(http, ledger):
    first = brought(http)
    ledger.cancel(first)
    second = str(http.post(f"/v1/jobs/{first}/retry").json()["id"])
    ledger.cancel(second)
    assert http.delete(f"/v1/jobs/{first}").status_code == 204
    body = problem(http.post(f"/v1/jobs/{second}/retry"), 409, "upload_not_found", state="cancelled")
    assert first in str(body["detail"])
    assert ledger.get(second).retried_as is None


def test_a_repetition_that_comes_after_the_deletion_of_its_upload_makes_no_second_job(server, http, ledger):
    key = uuid4().hex
    job_id = brought(http, key)
    ledger.cancel(job_id)
    assert http.delete(f"/v1/jobs/{job_id}").status_code == 204
    asked = {"content": b"bytes", "headers": {"Idempotency-Key": key}}
    problem(http.put("/v1/models?name=mine", **asked), 409, "upload_deleted")
    assert not server.layout.job(job_id).exists()
    with pytest.raises(JobNotFound):
        ledger.get(job_id)


def test_a_dataset_that_was_deleted_does_not_come_back_by_a_late_repetition(server, http, ledger):
    asked = {"content": tiny_zip(b"late"), "headers": {"Idempotency-Key": uuid4().hex}}
    made = http.post("/v1/datasets", **asked).json()
    ledger.cancel(made["job"]["id"])
    assert http.delete(f"/v1/datasets/{made['id']}").status_code == 204
    problem(http.post("/v1/datasets", **asked), 409, "upload_deleted")
    assert not server.layout.dataset(made["id"]).exists()
    assert ledger.get(made["job"]["id"]).state is State.CANCELLED


def test_a_late_repetition_that_was_killed_before_its_job_is_removed_by_the_next_server(server, http, ledger):
    job_id = brought(http, uuid4().hex)
    ledger.cancel(job_id)
    assert http.delete(f"/v1/jobs/{job_id}").status_code == 204
    late = Upload(server.layout, job_id, repeatable=True, folder=server.layout.job(job_id))
    late.write(b"bytes")
    about = {"id": job_id, "filename": None, "bytes": 5, "sha256": late.sha256, "asked": {"register_as": "mine"}}
    late.settle(AdoptionRecord.model_validate({**about, "created_at": datetime.now(UTC)}))
    late.close()

    async def main() -> None:
        url = str(server.state.settings.redis_url)
        asking = AsyncLedger(url)
        jobs = Jobs(asking, server.layout, url)
        await Adoptions(asking, server.layout, jobs, ring=lambda _: None).recover()
        asking.close()

    asyncio.run(main())
    assert not server.layout.job(job_id).exists()
