"""What is asked of a running job reaches its process, and what a retry starts with."""

import os
import time

import orjson
import pytest
from toy_claims import DONE, started

from jobs.archive import archive
from jobs.model import Orders as LedgerOrders
from jobs.model import State
from models import checkpoint_files
from models.checkpoint_files import StoredCheckpoint
from worker import orders
from worker.orders import Orders, OrdersFile


def said(ledger, job_id):
    return [event.data for event in ledger.events(job_id, limit=1000)[0] if event.type == "log"]


def test_orders_reach_the_running_process(run, ledger, layout):
    def patch(job_id):
        started(layout, job_id)
        ledger.patch(job_id, settings={"lr": 0.5})
        ledger.checkpoint(job_id)

    job = run([["orders", 2], *DONE], meanwhile=patch)
    (told,) = said(ledger, job.id)
    assert told["orders"] == {"version": 2, "settings": {"lr": 0.5}, "finish": False, "checkpoint": 1}
    assert job.state is State.SUCCEEDED


def test_the_next_claim_starts_with_the_orders_of_before(run, ledger, layout):
    def finish(job_id):
        started(layout, job_id)
        ledger.finish(job_id)

    job = run([["orders", 1], ["exit", 1]], [["orders", 0], *DONE], meanwhile=finish, bells=2)
    first, second = said(ledger, job.id)
    assert first["orders"] == second["orders"] == job.orders.model_dump()
    assert job.orders.finish


def test_both_sides_mean_the_same_by_orders():
    full = LedgerOrders(version=3, settings={"lr": 0.1, "patience": None}, finish=True, checkpoint=2)
    assert Orders.model_validate_json(full.model_dump_json()).model_dump() == full.model_dump()
    assert Orders() == Orders(**LedgerOrders().model_dump())


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setattr(orders, "LOOK_SECONDS", 0.0)
    return tmp_path / orders.NAME


def test_orders_are_told_once_each_time_they_change(file):
    looking = OrdersFile(file)
    assert looking.look() is None
    file.write_text('{"version": 1}')
    assert looking.look() == Orders(version=1)
    assert looking.look() is None
    file.write_text('{"version": 2, "finish": true}')
    assert looking.look() == Orders(version=2, finish=True)


@pytest.mark.parametrize("nonsense", ["", "{", '{"version": "x"}', "[]"])
def test_what_is_no_order_is_not_followed_and_told_once(file, nonsense, capsys):
    looking = OrdersFile(file)
    file.write_text(nonsense)
    assert looking.look() is None
    assert looking.look() is None
    assert capsys.readouterr().err.count("cannot be followed") == 1


def test_a_process_that_looks_all_the_time_touches_the_disk_five_times_a_second(tmp_path, monkeypatch):
    looked = []
    real = os.stat
    looking = OrdersFile(tmp_path / orders.NAME)  # threads of the test's process look at files of their own
    began = time.monotonic()
    with monkeypatch.context() as counting:
        counting.setattr(os, "stat", lambda *args, **kwargs: (looked.append(args), real(*args, **kwargs))[1])
        while time.monotonic() - began < 0.5:
            looking.look()
    looked = [args for args in looked if args == (tmp_path / orders.NAME,)]
    assert 1 <= len(looked) <= (time.monotonic() - began) * 5 + 1


def test_a_retry_goes_on_from_the_newest_checkpoint_of_the_job_that_it_retries(run, ledger, layout):
    old = run([["say", "error", {"code": "bad", "message": "no"}], ["exit", 78]])
    stored = StoredCheckpoint(step=7, state={"identity": {}}, tensors=b"tensors")
    checkpoint_files.save(layout.job(old.id) / "claim-1", stored)
    ledger.redis.hset(f"rn:job:{old.id}", "spec", orjson.dumps({"scripts": [[["files"], *DONE]]}))
    job = run(job_id=ledger.retry(old.id).job_id)
    assert job.state is State.SUCCEEDED
    (files,) = said(ledger, job.id)
    assert "claim-0/step-7/state.json" in files["files"]
    assert checkpoint_files.newest(layout.job(old.id)) == stored
    assert checkpoint_files.newest(layout.job(job.id)) is None  # it has succeeded: nobody goes on from it


@pytest.mark.parametrize("archived", [False, True])
def test_a_retry_of_a_retry_that_never_ran_goes_on_where_that_would_have(run, ledger, layout, archived):
    first = run([["say", "error", {"code": "bad", "message": "no"}], ["exit", 78]])
    stored = StoredCheckpoint(step=7, state={"identity": {}}, tensors=b"tensors")
    checkpoint_files.save(layout.job(first.id) / "claim-1", stored)
    ledger.redis.hset(f"rn:job:{first.id}", "spec", orjson.dumps({"scripts": [[["files"], *DONE]]}))
    second = ledger.retry(first.id).job_id
    ledger.cancel(second)
    third = ledger.retry(second).job_id
    if archived:  # Redis has forgotten what ended
        archive(ledger, layout)
        ledger.delete(second)
    (files,) = said(ledger, run(job_id=third).id)
    assert "claim-0/step-7/state.json" in files["files"]


def test_a_retry_of_a_job_without_a_checkpoint_starts_anew(run, ledger):
    old = run([["say", "error", {"code": "bad", "message": "no"}], ["exit", 78]])
    ledger.redis.hset(f"rn:job:{old.id}", "spec", orjson.dumps({"scripts": [[["files"], *DONE]]}))
    job = run(job_id=ledger.retry(old.id).job_id)
    assert not [name for name in said(ledger, job.id)[0]["files"] if name.startswith("claim-0")]
