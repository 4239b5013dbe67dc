"""`resnetd jobs …` and `resnetd train`: what they send, and what they say."""

import json
from hashlib import sha256

import pytest
from scripted_server import Answer, Told, json_answer, overlay_answer, server, stream
from typer.testing import CliRunner

from resnetd.cli import app
from resnetd.commands.follow import line
from resnetd.commands.options import parse_setting
from resnetd.errors import Refused

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


def test_a_list_is_filtered_by_states_kind_priority_dataset_and_model():
    answer = json_answer({"data": [JOB], "has_more": False, "next": None})
    filters = ("--state", "queued,paused", "--kind", "train", "--priority", "low", "--dataset", "ds_1", "--model", "m")
    printed, _, told = resnetd("jobs", "list", *filters, "--archived", answers=[answer])
    asked = "state=queued%2Cpaused&kind=train&priority=low&dataset=ds_1&model=m&archived=true"
    assert told.requests[0][1] == f"/v1/jobs?{asked}"
    assert printed.split("\t")[:3] == ["job_1", "train", "paused"]


def test_a_job_is_shown_with_its_place_its_changes_and_its_past():
    printed, _, _ = resnetd("jobs", "show", "job_1", answers=[json_answer(JOB)])
    for text in ("low", '{"lr": 0.1}', "12.3", "job_0", "https://example.org/h (failed)", "attempts"):
        assert text in printed


def test_a_job_is_shown_once_it_has_ended_or_after_so_long():
    _, _, told = resnetd("jobs", "show", "job_1", "--wait", "5", answers=[json_answer(JOB)])
    assert told.requests[0][1] == "/v1/jobs/job_1?wait=5.0"


def test_a_delivery_is_sent_again_by_the_verb_that_the_interface_has():
    found = {"data": [], "pending": [{"delivery": "1-0", "due_at": "2026-01-31T12:00:00Z"}]}
    _, said, told = resnetd("jobs", "deliveries", "job_1", "--redeliver", "1-0", answers=[json_answer(found)])
    assert told.requests[0][:2] == ("POST", "/v1/jobs/job_1/deliveries/1-0/redeliver")
    assert said == "1-0 is due at 2026-01-31 12:00:00\n"


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


WATCHED = [
    ("jobs", "watch", "job_1"),
    ("train", "ds_1", "--recipe", "mnist"),
    ("evaluate", "m", "ds_1"),
    ("export", "m", "--output", "{}"),
]


@pytest.mark.parametrize("ended", ["succeeded", "cancelled"])
@pytest.mark.parametrize("command", WATCHED, ids=lambda each: each[0])
def test_what_is_watched_in_json_prints_its_events_and_last_the_job(command, ended, tmp_path):
    events = stream(("1-0", "queued"), ("2-0", ended), clean=True)
    made = {**JOB, "spec": {"model": "m@1"}}
    done = {**made, "state": ended}
    submitted = [json_answer(made, 202)] * (command[0] != "jobs")
    empty = {"name": "a.zip", "bytes": 0, "sha256": sha256().hexdigest(), "href": "/a.zip"}
    files = json_answer({"data": [empty], "has_more": False, "next": None})
    words = [word.format(tmp_path) for word in command]
    with server(*submitted, events, json_answer(done), files) as (client, _):
        found = CliRunner().invoke(app, [*words, "--json", "--server", client.server])
    *told, last = (json.loads(each) for each in found.stdout.splitlines())
    assert ([each["type"] for each in told], last) == (["queued", ended], done)
    assert isinstance(found.exception, Refused) == (ended == "cancelled")


RECIPES = {
    "data": [
        {"name": "one", "fields": {"network": "mnist/gated", "init": None, "step_epochs": [], "patience": None}},
        {
            "name": "two",
            "fields": {"network": "cifar/resnet8", "init": {"model": "m@3"}, "mean": [0.5], "compile": False},
        },
    ]
}


def test_recipes_are_shown_with_every_field_and_its_value_as_set_takes_it():
    printed, _, _ = resnetd("recipes", answers=[json_answer(RECIPES)])
    lines = [line.split(maxsplit=1) for line in printed.splitlines()]
    one = [["network", "mnist/gated"], ["init", "null"], ["step_epochs", "[]"], ["patience", "null"]]
    two = [["network", "cifar/resnet8"], ["init", '{"model": "m@3"}'], ["mean", "[0.5]"], ["compile", "false"]]
    assert lines == [["one"], *one, [], ["two"], *two]
    for recipe, fields in zip(RECIPES["data"], (one, two), strict=True):
        assert dict(parse_setting(f"{name}={value}") for name, value in fields) == recipe["fields"]


def test_one_recipe_is_shown_alone_and_an_unknown_one_is_refused_with_those_that_there_are():
    fields = [
        {"name": name, "takes": f"any {name}", "default": None, "description": f"The {name} of it."}
        for name in RECIPES["data"][1]["fields"]
    ]
    printed, _, _ = resnetd("recipes", "two", answers=[json_answer(RECIPES), json_answer({"data": fields})])
    assert [" ".join(line.split()) for line in printed.splitlines()] == [
        "network cifar/resnet8 any network The network of it.",
        'init {"model": "m@3"} any init The init of it.',
        "mean [0.5] any mean The mean of it.",
        "compile false any compile The compile of it.",
    ]
    printed, _, _ = resnetd("recipes", "two", "--json", answers=[json_answer(RECIPES)])
    assert json.loads(printed) == RECIPES["data"][1]
    with server(json_answer(RECIPES)) as (client, _):
        ended = CliRunner().invoke(app, ["recipes", "three", "--server", client.server])
    assert isinstance(ended.exception, Refused)
    assert (ended.exception.message, ended.exception.hint) == ("There is no recipe three.", "There are: one, two.")


def test_pictures_of_images_that_differ_in_their_ending_alone_are_files_of_their_own(tmp_path):
    for name in ("cat.jpg", "cat.png"):
        (tmp_path / name).write_bytes(b"an image")
        printed, _, _ = resnetd("explain", str(tmp_path / name), answers=[overlay_answer])
        assert printed == f"{tmp_path / name}.explain.png\n"
    found = sorted(path.name for path in tmp_path.iterdir())
    assert found == ["cat.jpg", "cat.jpg.explain.png", "cat.png", "cat.png.explain.png"]


@pytest.mark.parametrize(
    ("kind", "data", "said"),
    [
        ("queued", {"reason": "submitted"}, "queued"),
        ("queued", {"reason": "resumed"}, "queued (resumed)"),
        ("queued", {"reason": "crashed", "crashes": 2, "error": {"message": "x"}}, "queued again after crash 2: x"),
        ("settings_changed", {"settings": {"lr": 0.1}, "priority": "low"}, "changed: lr 0.1, priority low"),
        ("finish_requested", {}, "finishing: the epoch that `keep` names is kept"),
        ("pausing", {}, "pausing"),
    ],
)  # fmt: skip
def test_what_was_asked_of_a_job_is_told_in_words(kind, data, said):
    assert line(kind, data) == said
