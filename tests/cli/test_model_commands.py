"""`resnetd models …`, and the uploads of models and datasets: what they send, and what they refuse in words."""

import json

import pytest
from scripted_server import Answer, Told, json_answer, server, stream
from typer.testing import CliRunner

from resnetd.cli import app
from resnetd.errors import Refused

MODEL = {"name": "pets", "latest": 3, "version_count": 3, "aliases": {"production": 3}}


def resnetd(*arguments: str, answers: list[Answer]) -> tuple[str, str, Told]:
    """Standard output, standard error, and what the server saw."""
    with server(*answers) as (client, told):
        ended = CliRunner().invoke(app, [*arguments, "--server", client.server])
    assert ended.exit_code == 0, ended.output
    return ended.stdout, ended.stderr, told


def refused(*arguments: str) -> Refused:
    with server() as (client, told):
        ended = CliRunner().invoke(app, [*arguments, "--server", client.server])
    assert isinstance(ended.exception, Refused)
    assert ended.exception.hint
    assert told.requests == []
    return ended.exception


def test_a_list_of_models_that_goes_on_is_gone_on_with_as_it_says():
    page = {"data": [MODEL], "has_more": True, "next": "pets"}
    printed, said, told = resnetd("models", "list", "--limit", "1", answers=[json_answer(page)])
    assert (printed, said) == ("pets\t3\t3\tproduction → 3\n", "There are more: --after pets\n")
    following = said.split(": ")[1].split()
    _, said, further = resnetd("models", "list", *following, answers=[json_answer({**page, "has_more": False})])
    assert [path for _, path, *_ in told.requests] == ["/v1/models?limit=1"]
    assert [path for _, path, *_ in further.requests] == ["/v1/models?after=pets"]
    assert said == ""


ALIAS = {"model": "pets", "alias": "production", "version": 2, "canary": None, "shadow": None}


def test_an_alias_is_deleted_where_the_aliases_are_those_that_were_seen():
    _, said, told = resnetd(
        "models", "unalias", "pets", "nightly", "--if-match", '"5f1c"', answers=[lambda handler: handler.send(204, b"")]
    )
    ((method, path, headers, _),) = told.requests
    assert (method, path, headers["if-match"]) == ("DELETE", "/v1/models/pets/aliases/nightly", '"5f1c"')
    assert said == "pets has no alias nightly any more.\n"


def test_a_rollback_is_told_and_asked_for_only_where_the_aliases_are_those_that_were_seen():
    command = ("models", "rollback", "pets", "production")
    _, said, told = resnetd(*command, answers=[json_answer(ALIAS)])
    assert (said, told.requests[0][2].get("if-match")) == ("pets@production is version 2.\n", None)
    printed, _, told = resnetd(*command, "--if-match", '"5f1c"', "--json", answers=[json_answer(ALIAS)])
    assert (json.loads(printed), told.requests[0][2]["if-match"]) == (ALIAS, '"5f1c"')


@pytest.mark.parametrize(("verb", "state"), [("load", "ready"), ("unload", "unloaded")])
def test_loading_and_unloading_tell_the_servers_answer_as_json(verb, state):
    answer = {"model": "pets", "version": 3, "state": state, "device": "cpu", "reason": None, "runtime": None}
    printed, said, _ = resnetd("models", verb, "pets@3", "--json", answers=[json_answer(answer)])
    assert (json.loads(printed), said) == (answer, "")


def test_a_model_is_not_downloaded_to_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").touch()
    assert "Not a directory" in str(refused("models", "download", "pets@3", "--output", str(tmp_path / "file" / "x")))


@pytest.mark.parametrize("content", [b'["cat", ', b"\xff\xfec\0a\0t\0"])
def test_classes_that_are_neither_text_nor_json_are_refused_before_anything_is_sent(tmp_path, content):
    classes, model = tmp_path / "classes", tmp_path / "model.pth"
    for file in (classes, model):
        file.write_bytes(content)
    assert str(classes) in str(refused("models", "import", str(model), "--name", "pets", "--classes", str(classes)))


@pytest.mark.parametrize(
    "command",
    [("datasets", "upload", "{}", "--no-follow"), ("models", "import", "{}", "--name", "pets", "--no-follow")],
    ids=["dataset", "model"],
)
def test_an_upload_is_sent_under_the_key_and_the_terms_that_are_given(tmp_path, command):
    file = tmp_path / "file.zip"
    file.write_bytes(b"PK")
    made = json_answer({"id": "ds_1", "job": {"id": "job_1"}}, 202)
    arguments = [each.format(file) for each in command]
    terms = ("--idempotency-key", "mine", "--priority", "high", "--max-seconds", "60")
    printed, said, told = resnetd(*arguments, *terms, answers=[made])
    ((_, path, headers, body),) = told.requests
    assert (printed, headers["idempotency-key"]) == ("ds_1\n", "mine")
    assert said.startswith("Queued; watch it with `resnetd jobs watch ")
    asked = path.encode() + body
    assert (asked.count(b"priority"), asked.count(b"high"), asked.count(b"60.0")) == (1, 1, 1)


@pytest.mark.parametrize("ended", ["succeeded", "failed"])
@pytest.mark.parametrize("kind", ["datasets", "models"])
def test_an_upload_that_is_followed_in_json_prints_events_and_then_what_came_of_it(tmp_path, kind, ended):
    file = tmp_path / "file.zip"
    file.write_bytes(b"PK")
    job = {"id": "job_1", "state": ended, "result": {"version": 3}}
    dataset = {"id": "ds_1", "status": "ready"}
    made = {"id": "ds_1", "job": {"id": "job_1"}} if kind == "datasets" else job
    events = stream(("1-0", "running"), ("2-0", ended), clean=True)
    words = ("datasets", "upload", str(file)) if kind == "datasets" else ("models", "import", str(file), "--name", "m")
    with server(json_answer(made, 202), events, json_answer(job), json_answer(dataset)) as (client, _):
        found = CliRunner().invoke(app, [*words, "--json", "--server", client.server])
    *told, last = (json.loads(line) for line in found.stdout.splitlines())
    assert [event["type"] for event in told] == ["running", ended]
    assert last == (dataset if kind == "datasets" and ended == "succeeded" else job)
    assert isinstance(found.exception, Refused) == (ended == "failed")


def test_a_dataset_is_shown_once_it_is_imported_and_a_list_is_chosen_from():
    page = json_answer({"data": [{"id": "ds_1", "name": "pets", "status": "ready"}], "has_more": False})
    _, _, told = resnetd("datasets", "list", "--name", "pets", "--status", "ready", answers=[page])
    assert told.requests[0][1] == "/v1/datasets?name=pets&status=ready"
    shown, _, told = resnetd("datasets", "show", "ds_1", "--wait", "30", answers=[json_answer({"id": "ds_1"})])
    assert (shown.split(), told.requests[0][1]) == (["id", "ds_1"], "/v1/datasets/ds_1?wait=30.0")
