"""/v1/jobs: asked for, looked at, followed, cancelled, against a real ledger whose worker is the test."""

import threading
from collections.abc import Callable
from uuid import uuid4

import httpx
import pytest
from edge_kit import claimed, dataset_on_disk, problem, serving, sse_messages, train
from samples import tiny_zip
from waiting import wait_for

from jobs import keys
from jobs.archive import archive
from jobs.model import JobError, Kind, Lane, State

PAGE = {"Accept": "application/json"}


def test_a_training_is_acknowledged_with_its_place_and_its_whole_request(http, dataset, ledger):
    answer = train(http, dataset, overrides={"lr": 0.02}, register_as="mine", alias="production")
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert (job["kind"], job["state"]) == ("train", "queued")
    spec = {
        "dataset": dataset,
        "recipe": "mnist",
        "overrides": {"lr": 0.02},
        "register_as": "mine",
        "alias": "production",
    }
    assert job["spec"] == spec
    assert ledger.get(job["id"]).spec == spec
    assert http.get(answer.headers["location"]).json() == job


def test_more_unfinished_jobs_than_there_may_be_are_refused_before_a_body_is_read(alone, dataset, http):
    assert train(http, dataset).status_code == 202  # Redis is the same
    with serving(alone.model_copy(update={"max_unfinished_jobs": 1})) as full:
        answer = train(full.http, dataset_on_disk(full.layout, f"ds_{uuid4().hex}"))
        problem(answer, 503, "queue_full")
        assert answer.headers["retry-after"] == "10"
        for path in ("/v1/datasets/pets.zip", "/v1/models?name=mine"):
            problem(full.http.put(path, content=tiny_zip()), 503, "queue_full")
        assert list(full.layout.uploads.iterdir()) == []


def test_the_same_idempotency_key_never_asks_twice_and_refuses_another_body(http, dataset):
    key = uuid4().hex
    first, again = train(http, dataset, key=key), train(http, dataset, key=key)
    assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])
    problem(train(http, dataset, key=key, overrides={"epochs": 3}), 422, "idempotency_conflict")
    assert train(http, dataset).json()["id"] != first.json()["id"]
    problem(train(http, dataset, key="x" * 300), 400, "invalid_idempotency_key")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"recipe": "mnits"}, ("recipe_not_found", "#/recipe", "mnist")),
        ({"overrides": {"learning_rate": 1}}, ("invalid_overrides", "#/overrides/learning_rate", "lr")),
        ({"overrides": {"lr": -1}}, ("invalid_overrides", "#/overrides/lr", "greater than 0")),
        ({"overrides": {"epochs": "many"}}, ("invalid_overrides", "#/overrides/epochs", "integer")),
        ({"datset": "x"}, ("invalid_request", "#/datset", "`dataset`")),
        ({"kind": "import"}, ("invalid_request", "#/kind", "POST /v1/datasets")),
        ({"register_as": "../evil"}, ("invalid_request", "#/register_as", "pattern")),
        ({"alias": "production"}, ("invalid_request", "#/alias", "needs register_as")),
        ({"register_as": "a", "alias": "7"}, ("invalid_request", "#/alias", "number")),
        ({"dataset": "ds_missing"}, ("dataset_not_found", "#/dataset", "ds_")),
        ({"dataset": "../../etc"}, ("dataset_not_found", "#/dataset", "ds_")),
    ],
)
def test_a_wrong_request_is_refused_at_once_and_told_what_would_do(http, dataset, change, expected):
    code, pointer, said = expected
    body = problem(train(http, **{"dataset": dataset, **change}), 422, code)
    assert [each["pointer"] for each in body["errors"]] == [pointer]
    assert said in str(body)


@pytest.mark.parametrize("body", [b"", b"{", b'{"kind": NaN}', b"[" * 50_000])
def test_a_body_that_is_no_json_is_a_400(http, body):
    problem(http.post("/v1/jobs", content=body), 400, "invalid_json")


def test_a_json_request_has_a_limit_in_bytes(http):
    body = problem(http.post("/v1/jobs", content=b" " * 1_000_001), 413, "body_too_large")
    assert "no setting" in str(body["hint"])


def test_a_dataset_that_is_still_imported_is_a_409_that_says_what_to_wait_for(http):
    upload = http.post("/v1/datasets", content=tiny_zip()).json()
    body = problem(train(http, upload["id"]), 409, "dataset_not_ready")
    assert upload["job"]["id"] in str(body["hint"])
    http.post(f"/v1/jobs/{upload['job']['id']}/cancel")
    problem(train(http, upload["id"]), 409, "dataset_failed")


def test_lists_are_pages_newest_first_that_filter_by_state_and_kind(http, dataset):
    made = [train(http, dataset).json()["id"] for _ in range(3)]
    first = http.get("/v1/jobs", params={"limit": 2, "kind": "train", "state": "queued"}).json()
    assert [each["id"] for each in first["data"]] == [made[2], made[1]]
    assert first["has_more"]
    second = http.get("/v1/jobs", params={"limit": 1, "kind": "train", "after": first["next"]}).json()
    assert second["data"][0]["id"] == made[0]
    assert made[0] not in str(http.get("/v1/jobs", params={"state": "running"}).json())
    assert made[0] not in str(http.get("/v1/jobs", params={"kind": "import", "limit": 200}).json())


def test_a_page_goes_on_behind_a_job_that_was_deleted_meanwhile(http, dataset):
    made = [train(http, dataset).json()["id"] for _ in range(3)]
    page = http.get("/v1/jobs", params={"limit": 2}).json()
    for job_id in made:
        http.post(f"/v1/jobs/{job_id}/cancel")
    assert http.delete(f"/v1/jobs/{made[1]}").status_code == 204
    rest = http.get("/v1/jobs", params={"limit": 1, "after": page["next"]}).json()
    assert [each["id"] for each in rest["data"]] == [made[0]]


def test_filters_that_are_repeated_add_up(http, dataset, idle):
    running = train(http, dataset, priority="low").json()["id"]
    claimed(idle, running)
    queued = train(http, dataset).json()["id"]
    query = [("state", "running"), ("state", "queued"), ("kind", "train"), ("kind", "export"), ("limit", "2")]
    assert [each["id"] for each in http.get("/v1/jobs", params=query).json()["data"]] == [queued, running]
    only = http.get("/v1/jobs", params=[*query, ("priority", "low,high")]).json()
    assert only["data"][0]["id"] == running


def test_lists_filter_by_the_dataset_and_by_the_model_that_a_job_is_about(http, dataset, idle):
    name = f"model-{uuid4().hex}"
    training = train(http, dataset, register_as=name).json()["id"]
    other = train(http, dataset).json()["id"]
    measuring = idle.submit(Kind.EVALUATE, {"model": f"{name}@3", "dataset": "ds_x", "split": "test"}).job_id

    def listed(**query: str) -> list[str]:
        return [each["id"] for each in http.get("/v1/jobs", params=query).json()["data"]]

    assert listed(dataset=dataset) == [other, training]
    assert listed(model=name) == [measuring, training]
    assert listed(model=f"{name}@3") == [measuring]
    assert listed(model=name, dataset=dataset, state="queued") == [training]
    assert listed(model=name[:-1]) == listed(model=name, kind="export") == []
    idle.succeed(claimed(idle, training), {"model": name, "version": 4})
    assert listed(model=f"{name}@4") == [training]
    page = http.get("/v1/jobs", params={"model": name, "limit": 1}).json()
    assert ([each["id"] for each in page["data"]], page["has_more"]) == ([measuring], True)
    assert listed(model=name, after=page["next"]) == [training]


@pytest.mark.parametrize(
    ("query", "pointer", "hint"),
    [
        ("status=running", "/query/status", "`state`"),
        ("limit=1&limit=2", "/query/limit", "once"),
    ],
)
def test_a_query_that_would_not_be_heard_is_a_422(http, query, pointer, hint):
    body = problem(http.get(f"/v1/jobs?{query}"), 422, "invalid_request")
    assert ([each["pointer"] for each in body["errors"]], hint in str(body["hint"])) == ([pointer], True)


def test_an_address_without_a_query_says_so(http):
    body = problem(http.post("/v1/jobs/job_x/cancel?force=1"), 422, "invalid_request")
    assert "no query parameters" in str(body["hint"])


@pytest.mark.parametrize("query", [{"limit": 0}, {"limit": 1000}, {"state": "happy"}, {"kind": "x"}])
def test_a_wrong_filter_is_a_422_that_names_it(http, query):
    body = problem(http.get("/v1/jobs", params=query), 422, "invalid_request")
    assert body["errors"][0]["pointer"] == f"/query/{next(iter(query))}"


def test_an_unknown_cursor_is_a_422(http):
    problem(http.get("/v1/jobs", params={"after": "job_none"}), 422, "invalid_cursor")


@pytest.mark.parametrize("path", ["", "/events", "/cancel"])
def test_an_unknown_job_is_a_404(http, path):
    for job_id in ("job_none", "..", "job_%2e%2e"):
        answer = http.request("POST" if path == "/cancel" else "GET", f"/v1/jobs/{job_id}{path}")
        assert answer.status_code == 404
    problem(http.get("/v1/jobs/job_none", headers={"Accept": "text/event-stream"}), 404, "job_not_found")


def test_a_job_shows_progress_metrics_and_result_as_the_worker_tells_them(http, dataset, idle):
    job_id = train(http, dataset).json()["id"]
    claim = claimed(idle, job_id)
    progress = {
        "phase": "train",
        "epoch": 1,
        "step": 10,
        "fraction": 0.5,
        "images_per_second": 99.0,
        "eta_seconds": 1.0,
    }
    epoch = {"epoch": 1, "val": {"top1": 0.9}}
    idle.emit(claim, 1, [("epoch", epoch)], patch={"progress": progress, "latest": epoch, "best": epoch})
    job = http.get(f"/v1/jobs/{job_id}").json()
    assert (job["state"], job["progress"], job["attempts"]) == ("running", progress, 1)
    assert "claim" not in job
    assert job["metrics"] == {"latest": epoch, "best": epoch}
    idle.succeed(claim, {"model": "mine", "version": 1})
    job = http.get(f"/v1/jobs/{job_id}").json()
    assert (job["state"], job["result"]) == ("succeeded", {"model": "mine", "version": 1})
    assert job["finished_at"] is not None


def test_a_job_shows_how_long_it_has_run_and_no_night_that_its_machine_slept_through(http, dataset, idle):
    job_id = train(http, dataset).json()["id"]
    claim = claimed(idle, job_id)
    night = int(idle.redis.hincrby(keys.job(job_id), "claimed_at", -8 * 3_600_000))
    idle.redis.hset(keys.job(job_id), mapping={"counted_at": night + 60_000, "ran_ms": 60_000})
    idle.redis.zadd(keys.LEASES, {job_id: night + 90_000})
    idle.renew(claim)
    idle.redis.hincrby(keys.job(job_id), "counted_at", -10_000)
    assert 100 <= http.get(f"/v1/jobs/{job_id}").json()["seconds"] < 130


def test_a_long_poll_answers_as_soon_as_the_job_has_ended(http, dataset, idle):
    job_id = train(http, dataset).json()["id"]
    claim = claimed(idle, job_id)
    threading.Timer(0.3, idle.fail, (claim, JobError(code="crashed", message="it died"))).start()
    job = http.get(f"/v1/jobs/{job_id}", params={"wait": 30}, timeout=10).json()
    assert (job["state"], job["error"]["code"]) == ("failed", "crashed")


def test_a_long_poll_answers_in_time_when_the_job_goes_on(http, dataset):
    job_id = train(http, dataset).json()["id"]
    assert http.get(f"/v1/jobs/{job_id}", params={"wait": 0.2}).json()["state"] == "queued"
    problem(http.get(f"/v1/jobs/{job_id}", params={"wait": 61}), 422, "invalid_request")


def test_cancelling_is_a_202_and_again_and_a_409_once_the_job_has_ended(http, dataset, idle):
    queued = train(http, dataset).json()["id"]
    for _ in range(2):
        answer = http.post(f"/v1/jobs/{queued}/cancel")
        assert (answer.status_code, answer.json()["state"]) == (202, "cancelled")
    running = train(http, dataset).json()["id"]
    claim = claimed(idle, running)
    for _ in range(2):
        answer = http.post(f"/v1/jobs/{running}/cancel")
        assert (answer.status_code, answer.json()["state"]) == (202, "cancelling")
    idle.cancelled(claim)
    assert http.post(f"/v1/jobs/{running}/cancel").status_code == 202
    done = train(http, dataset).json()["id"]
    idle.succeed(claimed(idle, done), {})
    assert "succeeded" in str(
        problem(http.post(f"/v1/jobs/{done}/cancel"), 409, "wrong_state", state="succeeded")["detail"]
    )


def test_events_are_sse_with_ids_that_end_after_the_last_event(http, dataset, idle):
    job_id = train(http, dataset).json()["id"]
    claim = claimed(idle, job_id)
    idle.emit(claim, 1, [("epoch", {"epoch": 1}), ("log", {"message": "a\nb"})])
    idle.succeed(claim, {})
    with http.stream("GET", f"/v1/jobs/{job_id}/events", headers={"Accept": "text/event-stream"}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        text = "".join(answer.iter_text())
    assert text.startswith("retry: ")
    found = sse_messages(text)
    assert [each["event"] for each in found] == ["queued", "running", "epoch", "log", "succeeded", "end"]
    assert found[3]["data"] == {"message": "a\nb"}
    resumed = http.get(
        f"/v1/jobs/{job_id}/events", headers={"Accept": "text/event-stream", "Last-Event-ID": found[2]["id"]}
    )
    assert [each["event"] for each in sse_messages(resumed.text)] == ["log", "succeeded", "end"]
    nothing = http.get(
        f"/v1/jobs/{job_id}/events", headers={"Accept": "text/event-stream"}, params={"after": found[4]["id"]}
    )
    assert [each["event"] for each in sse_messages(nothing.text)] == ["end"]


@pytest.mark.parametrize("accept", ["*/*", "", None])
def test_events_are_sse_for_who_names_no_media_type_and_for_who_resumes(http, dataset, accept):
    job_id = train(http, dataset).json()["id"]
    http.post(f"/v1/jobs/{job_id}/cancel")

    def told(accept: str | None, **headers: str) -> list[dict[str, object]]:
        request = http.build_request("GET", f"/v1/jobs/{job_id}/events", headers=headers)
        del request.headers["accept"]
        if accept is not None:
            request.headers["accept"] = accept
        answer = http.send(request)
        assert answer.headers["content-type"].startswith("text/event-stream")
        return sse_messages(answer.text)

    first, *rest = told(accept)
    assert [each["event"] for each in (first, *rest)] == ["queued", "cancelled", "end"]
    for liked in (accept, "application/json, text/event-stream;q=0.1"):
        assert told(liked, **{"Last-Event-ID": str(first["id"])}) == rest


def test_events_are_pages_of_json_and_lines_of_json_too(http, dataset, idle):
    job_id = train(http, dataset).json()["id"]
    http.post(f"/v1/jobs/{job_id}/cancel")
    url = f"/v1/jobs/{job_id}/events"
    page = http.get(url, params={"limit": 1}, headers=PAGE).json()
    assert ([each["type"] for each in page["data"]], page["has_more"]) == (["queued"], True)
    rest = http.get(url, params={"after": page["next"]}, headers=PAGE).json()
    assert ([each["type"] for each in rest["data"]], rest["has_more"], rest["next"]) == (["cancelled"], False, None)
    assert http.get(url, headers={**PAGE, "Last-Event-ID": page["next"]}).json() == rest
    lines = http.get(url, headers={"Accept": "application/x-ndjson"}).text.splitlines()
    assert [httpx.Response(200, text=line).json() for line in lines] == page["data"] + rest["data"]
    problem(http.get(url, headers={"Accept": "image/png"}), 406, "not_acceptable")
    problem(http.get(url, params={"after": "yesterday"}), 400, "invalid_event_id")


class Follower(threading.Thread):
    """Follows a job over SSE, hangs up after every `patience` events and comes back with its last id."""

    def __init__(self, url: str, *, patience: int, joined: threading.Barrier) -> None:
        super().__init__()
        self.url, self.patience, self.joined = url, patience, joined
        self.seen: list[str] = []

    def run(self) -> None:
        with httpx.Client(timeout=20) as http:
            ended = self.follow(http, self.joined.wait)
            while not ended:
                ended = self.follow(http, lambda: None)

    def follow(self, http: httpx.Client, first: Callable[[], object]) -> bool:
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": self.seen[-1]} if self.seen else {})
        stop = len(self.seen) + self.patience
        with http.stream("GET", self.url, headers=headers) as answer:
            lines = answer.iter_lines()
            next(lines)
            first()
            for line in lines:
                if line.startswith("id: "):
                    self.seen.append(line[4:])
                if line == "event: end":
                    return True
                if line == "" and len(self.seen) >= stop:
                    return False
        raise AssertionError("the stream ended without `end`")


def test_followers_that_come_and_go_see_every_event_once_and_in_order(server, dataset, idle):
    """Eight followers, each hanging up again and again, while a thousand events are written in bursts."""
    job_id = train(server.http, dataset).json()["id"]
    claim = claimed(idle, job_id)
    joined = threading.Barrier(9)
    url = f"{server.url}/v1/jobs/{job_id}/events"
    followers = [Follower(url, patience=40 + 30 * number, joined=joined) for number in range(8)]
    for follower in followers:
        follower.start()
    joined.wait(20)
    for burst in range(100):
        idle.emit(claim, burst + 1, [("log", {"n": burst * 10 + n}) for n in range(10)])
    idle.succeed(claim, {})
    for follower in followers:
        follower.join(30)
        assert not follower.is_alive()
    written = [entry_id for entry_id, _ in idle.redis.xrange(keys.events(job_id))]
    assert len(written) == 1000 + 3
    assert all(follower.seen == written for follower in followers)


def test_an_ended_job_outlives_redis(server, dataset, idle):
    job_id = train(server.http, dataset).json()["id"]
    idle.succeed(claimed(idle, job_id), {"model": "m", "version": 1})
    before = server.http.get(f"/v1/jobs/{job_id}").json()
    events = server.http.get(f"/v1/jobs/{job_id}/events", headers=PAGE).json()
    record = server.layout.job(job_id) / "record.json"
    wait_for(lambda: archive(idle, server.layout) or record.exists())  # it takes those that ended first
    idle.redis.delete(keys.job(job_id), keys.events(job_id))
    assert server.http.get(f"/v1/jobs/{job_id}").json() == before
    assert server.http.get(f"/v1/jobs/{job_id}/events", headers=PAGE).json() == events
    stream = server.http.get(f"/v1/jobs/{job_id}/events", headers={"Accept": "text/event-stream"})
    assert [each["event"] for each in sse_messages(stream.text)][-2:] == ["succeeded", "end"]
    problem(server.http.post(f"/v1/jobs/{job_id}/cancel"), 409, "wrong_state", state="succeeded")


def test_jobs_that_redis_has_forgotten_are_listed_from_disk(server, dataset, idle):
    made = [train(server.http, dataset, priority=priority).json()["id"] for priority in ("low", "high", "high")]
    for job_id in made:
        assert server.http.post(f"/v1/jobs/{job_id}/cancel").json()["state"] == "cancelled"
    records = [server.layout.job(job_id) / "record.json" for job_id in made]
    wait_for(lambda: archive(idle, server.layout) or all(each.exists() for each in records))
    shown = [server.http.get(f"/v1/jobs/{job_id}").json() for job_id in made]
    for job_id in made:
        idle.redis.zrem(keys.ALL, job_id)
        idle.redis.zrem(keys.state("cancelled"), job_id)
        idle.redis.delete(keys.job(job_id), keys.events(job_id))
    query = {"dataset": dataset, "limit": 2}
    assert server.http.get("/v1/jobs", params=query).json()["data"] == []
    first = server.http.get("/v1/jobs", params={**query, "archived": "true"}).json()
    assert (first["data"], first["has_more"]) == ([shown[2], shown[1]], True)
    rest = server.http.get("/v1/jobs", params={**query, "archived": "true", "after": first["next"]}).json()
    assert rest == {"data": [shown[0]], "has_more": False, "next": None}
    for given, expected in (
        ({"priority": "high"}, [shown[2], shown[1]]),
        ({"state": "succeeded"}, []),
        ({"kind": "import"}, []),
    ):
        page = server.http.get("/v1/jobs", params={"dataset": dataset, "archived": "true", **given}).json()
        assert page["data"] == expected
    assert server.http.delete(f"/v1/jobs/{made[2]}").status_code == 204
    assert server.http.get("/v1/jobs", params={**query, "archived": "true"}).json()["data"] == [shown[1], shown[0]]
    refused = server.http.get("/v1/jobs", params={"archived": "true", "after": "nobody"})
    assert problem(refused, 422, "invalid_cursor")["errors"][0]["pointer"] == "/query/after"


def test_a_list_of_jobs_is_without_each_classs_figures_and_the_job_itself_with_them(server, dataset, idle):
    job_id = train(server.http, dataset).json()["id"]
    metrics = {"top1": 0.9, "per_class": [{"class": "cat"}], "confusion": [[1]]}
    idle.succeed(claimed(idle, job_id), {"claim": 1, "metrics": metrics})
    assert server.http.get(f"/v1/jobs/{job_id}").json()["result"]["metrics"] == metrics
    (listed,) = server.http.get("/v1/jobs", params={"dataset": dataset}).json()["data"]
    assert listed["result"] == {"claim": 1, "metrics": {"top1": 0.9}}


def test_jobs_under_way_are_counted_by_state(http, dataset, ledger):
    train(http, dataset)
    queued = ledger.count()[State.QUEUED]
    assert f'\njobs{{state="queued"}} {float(queued)}' in http.get("/metrics").text


def test_a_job_of_the_import_kind_is_listed_like_any_other(http):
    upload = http.post("/v1/datasets", content=tiny_zip()).json()
    assert http.get(f"/v1/jobs/{upload['job']['id']}").json()["kind"] == Kind.IMPORT


@pytest.mark.parametrize("job_id", ["a%00b", "%2e%2e", "job_none", "job%20x"])
def test_what_cannot_be_an_id_is_an_unknown_job(http, job_id):
    assert http.get(f"/v1/jobs/{job_id}").status_code == 404
    assert http.get(f"/v1/jobs/{job_id}/events", headers={"Accept": "application/json"}).status_code == 404


def test_overrides_nested_without_end_are_refused(http, dataset):
    nested: object = 1
    for _ in range(200):
        nested = [nested]
    assert train(http, dataset, overrides={"epochs": nested}).status_code == 422


def test_a_job_that_began_to_publish_is_not_cancelled_after_the_death_of_its_claim_either(http, idle, dataset):
    job_id = train(http, dataset).json()["id"]
    claim = claimed(idle, job_id)
    assert idle.begin_publishing(claim, {"artifact": "a"})
    problem(http.post(f"/v1/jobs/{job_id}/cancel"), 409, "job_publishing", state="running")
    idle.release(claim, crash=JobError(code="crashed", message="it died"))
    problem(http.post(f"/v1/jobs/{job_id}/cancel"), 409, "job_publishing", state="queued")

    def succeeds() -> bool:
        again = idle.claim(Lane.DEVICE, owner="test", token=uuid4().hex)
        return again is not None and idle.succeed(again, {"artifact": "a"}) is State.SUCCEEDED

    wait_for(succeeds)
