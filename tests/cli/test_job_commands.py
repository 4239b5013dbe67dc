"""`resnetd jobs …` and `resnetd train`: what they send, and what they say."""

import json

import pytest
from test_client import Answer, Told, json_answer, server, stream
from typer.testing import CliRunner

from resnetd.cli import app
from resnetd.commands.follow import line

JOB = {
    "id": "job_1",
    "kind": "train",
    "state": "paused",
    "priority": "low",
    "queue": None,
    "settings": {"lr": 0.1},
    "seconds": 12.34,
    "attempts": 2,
    "crashes": 1,
    "retry_of": "job_0",
    "retried_as": None,
    "webhook": {"url": "https://example.org/h", "events": ["failed"]},
    "created_at": "2026-01-31T12:00:00Z",
    "progress": {"fraction": 0.5},
}


def resnetd(*arguments: str, answers: list[Answer]) -> tuple[str, str, Told]:
    """Standard output, standard error, and what the server saw."""
    with server(*answers) as (client, told):
        ended = CliRunner().invoke(app, [*arguments, "--server", client.server])
    assert ended.exit_code == 0, ended.output
    return ended.stdout, ended.stderr, told


@pytest.mark.parametrize("verb", ["cancel", "pause", "resume", "finish", "checkpoint", "retry"])
def test_a_verb_is_posted_once_under_a_key_and_the_state_is_told(verb):
    queued = {**JOB, "state": "queued", "queue": {"position": 3}}
    printed, said, told = resnetd("jobs", verb, "job_1", answers=[json_answer(queued, 202)])
    assert printed == ("job_1\n" if verb == "retry" else "")
    ((method, path, headers, _),) = told.requests
    assert (method, path) == ("POST", f"/v1/jobs/job_1/{verb}")
    assert headers["idempotency-key"]
    assert said == "job_1 queued, place 3 in the queue\n"
    printed, _, told = resnetd(
        "jobs", verb, "job_1", "--json", "--idempotency-key", "mine", answers=[json_answer(queued, 202)]
    )
    assert (json.loads(printed), told.requests[0][2]["idempotency-key"]) == (queued, "mine")


def test_settings_are_json_where_they_can_be():
    changes = ("lr=0.1", "patience=null", "priority=low")
    _, said, told = resnetd(
        "jobs", "set", "job_1", *changes, "--idempotency-key", "mine", answers=[json_answer(JOB, 202)]
    )
    method, path, headers, body = told.requests[0]
    assert (method, path, said) == ("PATCH", "/v1/jobs/job_1", "job_1 paused\n")
    assert headers["idempotency-key"] == "mine"
    assert json.loads(body) == {"lr": 0.1, "patience": None, "priority": "low"}


def test_a_job_is_deleted():
    _, said, told = resnetd("jobs", "delete", "job_1", answers=[lambda handler: handler.send(204, b"")])
    assert (told.requests[0][:2], said) == (("DELETE", "/v1/jobs/job_1"), "job_1 deleted\n")


def test_a_list_is_filtered_by_states_kind_and_priority():
    answer = json_answer({"data": [JOB], "has_more": False, "next": None})
    filters = ("--state", "queued,paused", "--kind", "train", "--priority", "low")
    printed, _, told = resnetd("jobs", "list", *filters, answers=[answer])
    assert told.requests[0][1] == "/v1/jobs?limit=20&state=queued%2Cpaused&kind=train&priority=low"
    assert printed.split("\t")[:3] == ["job_1", "train", "paused"]


def test_a_job_is_shown_with_its_place_its_changes_and_its_past():
    printed, _, _ = resnetd("jobs", "show", "job_1", answers=[json_answer(JOB)])
    for text in ("low", '{"lr": 0.1}', "12.3", "job_0", "https://example.org/h (failed)", "attempts"):
        assert text in printed


def test_the_events_so_far_are_pages_that_follow_on_each_other():
    def page(number: int, *, more: bool) -> Answer:
        entry = {"id": f"{number}-0", "type": "log", "at": "2026-01-31T12:00:00Z", "data": {"message": "hello"}}
        return json_answer({"data": [entry], "has_more": more, "next": entry["id"] if more else None})

    printed, _, told = resnetd(
        "jobs", "events", "job_1", "--no-follow", answers=[page(1, more=True), page(2, more=False)]
    )
    assert printed == "1-0\tlog\thello\n2-0\tlog\thello\n"
    assert [path.partition("?")[2] for _, path, _, _ in told.requests] == ["limit=200", "limit=200&after=1-0"]


@pytest.mark.parametrize("following", [True, False])
def test_events_in_json_tell_when_they_happened_as_the_server_writes_it(following):
    entry = {"id": "1769860801000-0", "type": "succeeded", "at": "2026-01-31T12:00:01Z", "data": {"n": 1}}
    page = json_answer({"data": [entry], "has_more": False, "next": None})
    answer = stream(("1769860801000-0", "succeeded"), clean=True) if following else page
    follow = "--follow" if following else "--no-follow"
    printed, _, _ = resnetd("jobs", "events", "job_1", "--json", follow, answers=[answer])
    assert json.loads(printed) == entry


def test_a_training_is_asked_with_its_terms_and_its_secret_is_told_once():
    made = {**JOB, "state": "queued", "webhook": {"url": "https://example.org/h", "events": [], "secret": "whsec_x"}}
    terms = ("--priority", "high", "--max-seconds", "60", "--webhook", "https://example.org/h")
    printed, said, told = resnetd(
        "train", "ds_1", "--recipe", "mnist", *terms, "--no-follow", answers=[json_answer(made, 202)]
    )
    body = json.loads(told.requests[0][3])
    assert (body["priority"], body["max_seconds"], body["webhook"]) == ("high", 60, {"url": "https://example.org/h"})
    assert "whsec_x" in said
    assert printed == "job_1\n"


@pytest.mark.parametrize(
    "command",
    [("train", "ds_1", "--recipe", "mnist"), ("evaluate", "m", "ds_1"), ("export", "m")],
    ids=lambda each: each[0],
)
def test_every_kind_takes_the_same_terms(command):
    terms = (
        "--priority",
        "low",
        "--max-seconds",
        "9",
        "--webhook",
        "https://example.org/h",
        "--idempotency-key",
        "mine",
    )
    hook = {"url": "https://example.org/h", "events": [], "secret": "whsec_x"}
    _, said, told = resnetd(*command, *terms, "--no-follow", answers=[json_answer({**JOB, "webhook": hook}, 202)])
    body = json.loads(told.requests[0][3])
    assert (body["kind"], body["priority"], body["max_seconds"]) == (command[0], "low", 9)
    assert (body["webhook"], told.requests[0][2]["idempotency-key"]) == ({"url": "https://example.org/h"}, "mine")
    assert "whsec_x" in said


def test_what_a_crashed_process_wrote_is_shown_by_its_last_lines():
    error = {"code": "crash_loop", "message": "it died", "hint": "", "log": "\n".join(f"line {n}" for n in range(50))}
    _, said, _ = resnetd("jobs", "show", "job_1", answers=[json_answer({**JOB, "state": "failed", "error": error})])
    assert [line.strip() for line in said.splitlines()[1:]] == [f"line {n}" for n in range(30, 50)]


def test_watching_tells_each_change_of_state():
    events = [("1-0", "queued"), ("2-0", "running"), ("3-0", "paused"), ("4-0", "succeeded")]
    done = json_answer({**JOB, "state": "succeeded"})
    _, said, _ = resnetd("jobs", "watch", "job_1", answers=[stream(*events, clean=True), done])
    assert said.splitlines() == ["queued", "running", "paused", "succeeded", "job_1 succeeded"]


@pytest.mark.parametrize("command", [("jobs", "watch", "job_1"), ("train", "ds_1", "--recipe", "mnist")])
def test_what_is_watched_in_json_prints_its_events_and_nothing_else(command):
    events = stream(("1-0", "queued"), ("2-0", "succeeded"), clean=True)
    answers = [json_answer(JOB, 202)] * (command[0] == "train")
    done = json_answer({**JOB, "state": "succeeded"})
    printed, _, _ = resnetd(*command, "--json", answers=[*answers, events, done])
    assert [json.loads(each)["type"] for each in printed.splitlines()] == ["queued", "succeeded"]


@pytest.mark.parametrize(
    ("kind", "data", "said"),
    [
        ("queued", {"reason": "submitted"}, "queued"),
        ("queued", {"reason": "resumed"}, "queued (resumed)"),
        ("queued", {"reason": "crashed", "crashes": 2, "error": {"message": "x"}}, "queued again after crash 2: x"),
        ("settings_changed", {"settings": {"lr": 0.1}, "priority": "low"}, "changed: lr 0.1, priority low"),
        ("finish_requested", {}, "finishing: the best so far is kept"),
        ("pausing", {}, "pausing"),
    ],
)  # fmt: skip
def test_what_was_asked_of_a_job_is_told_in_words(kind, data, said):
    assert line(kind, data) == said
