"""A worker's answers to questions for a plan: what is known, when it measures, and for whom it stops."""

import json
import os
import time
from pathlib import Path

import pytest
from planning_kit import images, on_disk
from waiting import meanwhile

from jobs import keys
from jobs.doorbell import Doorbell
from jobs.model import Kind, Lane
from jobs.plans import Plans, PlanState
from worker import plan_process, plans
from worker.lane import last_taken, lock_path, slot
from worker.supervisor import Workplace

QUESTION = {"dataset": "ds_pets", "recipe": "fashion-mnist-small", "overrides": {"epochs": 2}}
MEASURES = [["plan", "not_finished"], ["measured"], ["plan", None]]


@pytest.fixture
def at(layout, tmp_path) -> Workplace:
    on_disk(layout, {"train": images(30, seed=0), "test": images(9, seed=1)})
    return Workplace(layout=layout, device="cpu", drain=tmp_path / "drain", stall_seconds=60.0, drain_seconds=20.0)


@pytest.fixture
def ask(ledger, at, tmp_path, monkeypatch):
    """Ask, and have the worker answer by the toy's script; the entry that whoever asked finds."""
    monkeypatch.setattr(plan_process, "PROGRAM", "toy_planner")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setenv("TOY_FOLDER", str(tmp_path))

    def go(*script, **question):
        monkeypatch.setenv("TOY_PLANNER", json.dumps(script))
        plan_id = Plans(ledger.redis).ask({**QUESTION, **question})
        go.held = plans.answer_plan(plan_id, ledger, at)
        return Plans(ledger.redis).look(plan_id)

    return go


def runs(tmp_path) -> list[dict]:
    """What each process was asked, in order."""
    return [json.loads(each.read_text()) for each in sorted(tmp_path.glob("run-*"))]


def test_on_a_free_device_the_plan_is_measured_and_the_slot_is_free_again(ask, at, tmp_path):
    entry = ask(*MEASURES)
    assert (entry.state, entry.body["measured"]["reason"]) == (PlanState.ANSWERED, None)
    assert ask.held
    assert "--measure" in runs(tmp_path)[0]["arguments"]
    assert last_taken(lock_path(at.layout, Lane.DEVICE, "cpu")) is not None


def test_the_same_question_again_starts_nothing_and_says_that_its_figures_are_from_before(ask, tmp_path):
    assert not ask(*MEASURES).body["measured"]["cached"]
    again = ask()
    assert (again.body["n"], again.body["measured"]) == (0, {"reason": None, "cached": True})
    assert not ask.held
    assert len(runs(tmp_path)) == 1


def test_figures_that_other_work_disturbed_are_told_and_not_kept(ask, tmp_path):
    entry = ask(["measured"], ["disturbed"])
    assert entry.body["problems"] == [{"code": "machine_busy"}]
    assert ask(*MEASURES).body["measured"] == {"reason": None, "cached": False}
    assert runs(tmp_path)[1]["request"]["measured"] is None


def test_another_plan_of_the_same_work_is_not_measured_again(ask, tmp_path):
    ask(*MEASURES)
    ask(["plan", None], overrides={"epochs": 99, "lr": 0.01})
    assert not ask.held
    _, second = runs(tmp_path)
    assert second["request"]["measured"] == {"images_per_second": 7.0}
    assert "--measure" not in second["arguments"]
    ask(*MEASURES, overrides={"batch_size": 8})
    assert runs(tmp_path)[2]["request"]["measured"] is None


def test_while_a_training_has_the_device_the_plan_has_no_measured_figures_and_is_not_kept(ask, at, tmp_path):
    with slot(at.layout, Lane.DEVICE, "cpu") as training:
        assert training is not None
        entry = ask(["plan", "device_busy"])
    assert entry.body["measured"]["reason"] == "device_busy"
    assert "--measure" not in runs(tmp_path)[0]["arguments"]
    assert ask(*MEASURES).body["measured"]["reason"] is None


def test_no_measurement_begins_while_a_job_is_due(ask, ledger, tmp_path):
    ledger.submit(Kind.TRAIN, {"dataset": "ds_pets"})
    ask(["plan", "device_busy"])
    assert "--measure" not in runs(tmp_path)[0]["arguments"]
    assert not ask.held


def test_a_job_that_becomes_due_has_the_device_within_three_seconds(ask, ledger, at, tmp_path):
    came = []

    def submit():
        ledger.submit(Kind.TRAIN, {"dataset": "ds_pets"})
        came.append(time.monotonic())

    with meanwhile((tmp_path / "measuring").exists, submit):
        entry = ask(["plan", "not_finished"], ["reached", "measuring"], ["hang"])
    assert time.monotonic() - came[0] < 3.0  # 0.25 s and what a crowded machine makes of it
    assert entry.body["measured"]["reason"] == "device_needed"
    assert ask.held  # and is rung for
    with slot(at.layout, Lane.DEVICE, "cpu") as training:
        assert training is not None
    with pytest.raises(ProcessLookupError):
        os.kill(runs(tmp_path)[0]["pid"], 0)


@pytest.mark.parametrize("kind", [Kind.IMPORT, Kind.TRAIN])
def test_a_job_that_waits_for_a_process_ends_a_plan_that_has_no_slot(ask, ledger, tmp_path, monkeypatch, kind):
    monkeypatch.setattr(plans, "PATIENCE_SECONDS", 0.1)
    ask(*MEASURES)  # the next one is not measured
    job = {"dataset": "ds_pets"}
    with meanwhile((tmp_path / "measuring").exists, lambda: ledger.submit(kind, job)):
        entry = ask(["reached", "measuring"], ["hang"], overrides={"epochs": 3})
    assert not ask.held
    assert (entry.state, entry.body["code"], entry.body["passing"]) == (PlanState.REFUSED, "worker_busy", True)


def test_a_worker_that_hears_questions_does_not_pass_for_deaf(ask, at):
    lock = lock_path(at.layout, Lane.CPU, "cpu")
    with slot(at.layout, Lane.CPU, "cpu"):
        pass
    os.utime(lock, ns=(0, 0))
    ask(*MEASURES)
    assert last_taken(lock)


def test_a_worker_that_goes_away_ends_the_planning_and_says_so(ask, at, tmp_path):
    with meanwhile((tmp_path / "measuring").exists, at.drain.touch):
        entry = ask(["plan", "not_finished"], ["reached", "measuring"], ["hang"])
    assert (entry.state, entry.body["code"], entry.body["passing"]) == (PlanState.REFUSED, "worker_stopping", True)


def test_a_plan_that_takes_too_long_is_what_was_known_by_then(ask, tmp_path, monkeypatch):
    with meanwhile((tmp_path / "measuring").exists, lambda: monkeypatch.setattr(plans, "FINISH_SECONDS", 0.0)):
        entry = ask(["plan", "not_finished"], ["reached", "measuring"], ["hang"])
    assert entry.body["measured"]["reason"] == "too_slow"
    assert ask(["hang"], overrides={"epochs": 3}).body["code"] == "plan_too_slow"


def test_a_process_that_dies_is_told_apart_from_one_that_refuses(ask):
    died = ask(["noise"], ["exit", 3])
    assert (died.state, died.body["code"], died.body["passing"]) == (PlanState.REFUSED, "planner_died", True)
    assert "status 3" in died.body["message"]
    assert ask(["plan", "not_finished"], ["exit", 1]).body["measured"]["reason"] == "died"
    refused = ask(["error", "dataset_damaged"], ["exit", 78])
    assert refused.body == {
        "code": "dataset_damaged",
        "message": "it cannot be",
        "hint": "do otherwise",
        "passing": False,
    }


def test_the_curve_alone_is_drawn_beside_a_training_and_kept(ask, at, tmp_path):
    with slot(at.layout, Lane.DEVICE, "cpu"):
        assert ask(["curve"], curve=True).body == {"svg": "<svg/>"}
    assert ask(curve=True).body == {"svg": "<svg/>"}
    assert len(runs(tmp_path)) == 1


def test_nobody_works_on_a_question_that_nobody_asks_any_more_or_that_another_worker_has(ask, ledger, at, tmp_path):
    asked = Plans(ledger.redis)
    gone = asked.ask(QUESTION)
    asked.forget(gone)
    taken = asked.ask(QUESTION)
    assert asked.take(taken) == QUESTION
    for plan_id in (gone, taken):
        assert not plans.answer_plan(plan_id, ledger, at)
    assert runs(tmp_path) == []
    asked.answer(gone, {"late": True})
    assert asked.look(gone) is None


def test_a_dataset_that_is_gone_is_refused(ask, tmp_path):
    entry = ask(dataset="ds_gone")
    assert (entry.state, entry.body["code"]) == (PlanState.REFUSED, "plan_refused")
    assert runs(tmp_path) == []


def test_questions_and_what_is_kept_of_them_do_not_stay_in_redis(ask, redis):
    ask(*MEASURES)
    left = {key: redis.pttl(key) for key in redis.scan_iter(keys.plan("*"))}
    assert len(left) == 3  # the question, the plan, the measurement
    assert all(0 < each <= 3_600_000 for each in left.values())


def test_a_question_travels_in_the_queue_of_uploads(redis_url):
    doorbell = Doorbell(redis_url)
    assert doorbell.ask_for_plan("asked:1")
    assert (doorbell.waiting(Lane.CPU), doorbell.waiting(Lane.DEVICE)) == (1, 0)
