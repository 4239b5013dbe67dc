"""POST /v1/jobs/plan: what is asked of a worker, what is answered, and what is said where no worker answers."""

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from edge_kit import dataset_on_disk, problem, serving
from running import redis_admin_url
from waiting import wait_for

from app.schemas.plans import PlanBody
from app.services import plans as service
from jobs import keys
from jobs.ledger import Ledger
from jobs.plans import Plans
from jobs.redis import connect
from store.layout import Layout

PLAN = PlanBody.model_json_schema()["examples"][0]
SVG = "image/svg+xml"


def ask(http: httpx.Client, dataset: str, accept: str = "*/*", **more: object) -> httpx.Response:
    body = {"kind": "train", "dataset": dataset, "recipe": "mnist", **more}
    return http.post("/v1/jobs/plan", json=body, headers={"Accept": accept})


@pytest.fixture
def plans(redis_layout: Layout, ledger: Ledger) -> Iterator[Plans]:
    """The worker's side, and no question of another test."""
    redis = connect(redis_admin_url(redis_layout))
    for key in redis.scan_iter(keys.plan("*")):
        redis.delete(key)
    yield Plans(redis)
    redis.close()


@contextlib.contextmanager
def worker(plans: Plans, answer: dict | None = None, **refusal: object) -> Iterator[list[dict]]:
    """Takes one question as soon as it is asked, and answers it; yields what it was asked."""
    asked: list[dict] = []
    ended = threading.Event()

    def work() -> None:
        while not ended.is_set():
            for key in plans._redis.scan_iter(keys.plan("asked:*")):
                plan_id = key.removeprefix(keys.plan(""))
                question = plans.take(plan_id)
                if question is not None:
                    asked.append(question)
                    plans.refuse(plan_id, **refusal) if answer is None else plans.answer(plan_id, answer)
                    return
            time.sleep(0.01)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield asked
    finally:
        ended.set()
        thread.join()


def test_a_plan_is_a_workers_answer_and_nothing_is_queued(http, dataset, plans, ledger):
    before = ledger.count()
    with worker(plans, PLAN) as asked:
        answer = ask(http, dataset, overrides={"epochs": 2}, max_seconds=60, priority="high", register_as="m")
    assert answer.status_code == 200, answer.text
    assert answer.headers["vary"] == "Accept"
    found = answer.json()
    assert (found["images_per_second"], found["eta"]["validate"]) == (PLAN["images_per_second"], 1.2)
    assert set(found) == set(PLAN)
    overrides = {"epochs": 2, "warmup_epochs": 0.27}
    assert asked == [{"dataset": dataset, "recipe": "mnist", "overrides": overrides, "max_seconds": 60.0}]
    assert ledger.count() == before
    assert list(plans._redis.scan_iter(keys.plan("asked:*"))) == []


def test_figures_that_were_not_measured_are_null_with_the_reason(http, dataset, plans):
    missing = ("images_per_second", "eta_seconds", "eta", "memory", "largest_batch_size", "largest_batch")
    told = {**PLAN, **dict.fromkeys(missing), "measured": {"reason": "device_busy", "cached": False}}
    with worker(plans, told):
        found = ask(http, dataset).json()
    assert {name: found[name] for name in missing} == dict.fromkeys(missing)
    assert found["measured"]["reason"] == "device_busy"


def test_the_learning_rate_comes_as_svg_to_whoever_likes_that_best(http, dataset, plans):
    with worker(plans, {"svg": "<svg/>"}) as asked:
        answer = ask(http, dataset, accept=f"{SVG}, application/json;q=0.5")
    assert (answer.status_code, answer.text, answer.headers["content-type"]) == (200, "<svg/>", SVG)
    assert asked[0]["curve"] is True
    problem(ask(http, dataset, accept="image/gif"), 406, "not_acceptable")


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ({"recipe": "mnits"}, "recipe_not_found", "the nearest is 'mnist'"),
        ({"overrides": {"epoch": 3}}, "invalid_overrides", "the nearest is 'epochs'"),
        ({"overrides": {"epochs": 0}}, "invalid_overrides", "epochs"),
        ({"kind": "evaluate"}, "invalid_request", "kind must be one of: train"),
        ({"recipes": "mnist"}, "invalid_request", "#/recipes"),
    ],
)
def test_a_request_that_would_not_be_accepted_as_a_job_is_not_planned(http, dataset, change, code, said):
    body = {"kind": "train", "dataset": dataset, "recipe": "mnist", **change}
    found = problem(http.post("/v1/jobs/plan", json=body), 422, code)
    assert said in found["detail"]


def test_a_dataset_that_is_not_there_is_refused_at_once(http):
    problem(ask(http, "ds_nowhere"), 422, "dataset_not_found")


def test_what_a_worker_refuses_is_told_as_it_says_it(http, dataset, plans):
    told = {"code": "dataset_damaged", "message": "split train is damaged", "hint": "Import the dataset again."}
    with worker(plans, passing=False, **told):
        found = problem(ask(http, dataset), 422, "dataset_damaged")
    assert (found["detail"], found["hint"]) == ("split train is damaged.", told["hint"])
    with worker(plans, passing=True, **{**told, "code": "worker_stopping"}):
        answer = ask(http, dataset)
    problem(answer, 503, "worker_stopping")
    assert answer.headers["retry-after"]


def test_where_no_worker_takes_the_question_the_answer_says_so_in_time(http, dataset, plans, monkeypatch):
    monkeypatch.setattr(service, "TAKE_SECONDS", 0.3)
    answer = ask(http, dataset)
    found = problem(answer, 503, "no_worker")
    assert "resnetd work" in found["hint"]
    assert answer.headers["retry-after"]


def test_where_a_worker_does_not_end_the_plan_the_answer_says_so(http, dataset, plans, monkeypatch):
    monkeypatch.setattr(service, "ANSWER_SECONDS", 0.6)
    monkeypatch.setattr(plans, "answer", lambda *_: None)
    with worker(plans, PLAN):
        problem(ask(http, dataset), 503, "plan_too_slow")


def test_more_plans_than_a_worker_can_make_are_refused_at_once(http, dataset, plans, monkeypatch):
    monkeypatch.setattr(service, "_AT_ONCE", 2)
    monkeypatch.setattr(service, "TAKE_SECONDS", 1.5)
    with ThreadPoolExecutor(6) as pool:
        codes = sorted(each.json()["code"] for each in pool.map(lambda _: ask(http, dataset), range(6)))
    assert codes == ["no_worker"] * 2 + ["too_many_plans"] * 4


def test_a_client_that_hangs_up_takes_its_question_back(http, dataset, plans):
    body = {"kind": "train", "dataset": dataset, "recipe": "mnist"}
    with pytest.raises(httpx.ReadTimeout):
        http.post("/v1/jobs/plan", json=body, timeout=httpx.Timeout(10, read=1.0))
    wait_for(lambda: not list(plans._redis.scan_iter(keys.plan("*"))), service.TAKE_SECONDS / 2)


def test_while_redis_is_away_the_answer_says_so(alone, tmp_path):
    with serving(alone.model_copy(update={"redis_url": f"unix://{tmp_path / 'nowhere.sock'}"})) as server:
        problem(ask(server.http, dataset_on_disk(server.layout, "ds_here")), 503, "ledger_unavailable")


def test_the_example_is_a_plan():
    assert json.loads(PlanBody.model_validate(PLAN).model_dump_json(by_alias=True))["eta"] == PLAN["eta"]
