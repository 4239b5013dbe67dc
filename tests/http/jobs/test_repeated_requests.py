"""What was written is answered as written: when Redis goes away right after, and when the request is sent again."""

import threading
from uuid import uuid4

import pytest
from edge_kit import claimed, dataset_on_disk, problem, serving, train

from app.services.ledger import ledger_away
from jobs.model import JobError


def test_a_change_that_is_sent_again_is_answered_as_it_was_whatever_has_happened_since(http, dataset, idle):
    job_id = str(train(http, dataset).json()["id"])
    claim, key = claimed(idle, job_id), uuid4().hex

    def change(key: str | None = None):
        headers = {"Idempotency-Key": key} if key else {}
        return http.patch(f"/v1/jobs/{job_id}", json={"epochs": 5, "priority": "low"}, headers=headers)

    assert change(key).status_code == 202
    idle.emit(claim, 1, [], patch={"progress": {"epoch": 7}})
    problem(change(), 422, "invalid_settings")
    problem(change(uuid4().hex), 422, "invalid_settings")
    assert change(key).status_code == 202
    idle.fail(claim, JobError(code="crashed", message="it died"))
    problem(change(), 409, "wrong_state", state="failed")
    problem(change(uuid4().hex), 409, "wrong_state", state="failed")
    again = change(key)
    assert (again.status_code, again.json()["state"], again.json()["settings"]) == (202, "failed", {"epochs": 5})
    assert [event.type for event in idle.events(job_id)[0]].count("settings_changed") == 1


def test_a_wrong_change_of_an_ended_job_is_refused_for_its_end(http, dataset, idle):
    job_id = str(train(http, dataset).json()["id"])
    idle.fail(claimed(idle, job_id), JobError(code="crashed", message="it died"))
    problem(http.patch(f"/v1/jobs/{job_id}", json={"epochs": 10**6}), 409, "wrong_state", state="failed")


@pytest.mark.parametrize("what", ["training", "model"])
def test_a_job_that_was_written_is_acknowledged_also_where_redis_goes_away_right_after(alone, monkeypatch, what):
    with serving(alone) as server:
        written = threading.Event()
        write, read = server.state.ledger.write, server.state.ledger.read

        async def writing(call):
            answer = await write(call)
            written.set()
            return answer

        async def reading(call, **options):
            if written.is_set():
                raise ledger_away("it has just gone")
            return await read(call, **options)

        monkeypatch.setattr(server.state.ledger, "write", writing)
        monkeypatch.setattr(server.state.ledger, "read", reading)
        if what == "training":
            answer = train(server.http, dataset_on_disk(server.layout, f"ds_{uuid4().hex}"))
        else:
            answer = server.http.put("/v1/models?name=mine", content=b"bytes")
        assert written.is_set()
        assert (answer.status_code, answer.json()["state"]) == (202, "queued")
