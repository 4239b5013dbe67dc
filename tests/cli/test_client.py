"""The Python client: what it asks, how long it waits, and what it makes of answers and problems."""

import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from scripted_server import (
    DEGRADED,
    NOT_READY,
    RESULTS,
    Handler,
    away,
    html_answer,
    json_answer,
    overlay_answer,
    server,
    stream,
)

from resnetd.client import Client
from resnetd.errors import Problem, Unreachable


def test_a_problem_carries_its_code_status_and_hint():
    body = {"title": "Not Found", "status": 404, "code": "job_not_found", "detail": "There is none.", "hint": "List."}
    with server(json_answer(body, 404)) as (client, told), pytest.raises(Problem) as refused:
        client.job("job_1")
    problem = refused.value
    assert (problem.status, problem.code, problem.hint, problem.errors) == (404, "job_not_found", "List.", [])
    assert told.requests[0][2]["authorization"] == "Bearer secret"


def test_an_error_that_is_no_problem_document_is_still_told():
    with server(html_answer(502, b"<html>bad gateway")) as (client, _), pytest.raises(Problem) as refused:
        client.job("job_1")
    assert (refused.value.status, refused.value.code) == (502, "http_error")
    assert "bad gateway" in refused.value.detail


def test_an_answer_that_is_not_json_is_no_resnetd():
    with server(html_answer(200, b"<html>")) as (client, _), pytest.raises(Unreachable, match="resnetd server"):
        client.models()


@pytest.fixture
def timeouts(monkeypatch) -> list[tuple[float, float]]:
    """(to connect, to wait for an answer) of each request that is sent."""
    seen: list[tuple[float, float]] = []
    send = httpx.Client.send

    def spy(self: httpx.Client, request: httpx.Request, **options: Any) -> httpx.Response:
        seen.append((request.extensions["timeout"]["connect"], request.extensions["timeout"]["read"]))
        return send(self, request, **options)

    monkeypatch.setattr(httpx.Client, "send", spy)
    return seen


@pytest.mark.parametrize(
    ("call", "answer", "seconds"),
    [
        (lambda client: client.job("job_1", wait=60), {"state": "running"}, 70.0),
        (lambda client: client.job("job_1", wait=30), {"state": "running"}, 40.0),
        (lambda client: client.job("job_1"), {"state": "running"}, 20.0),
        (lambda client: client.dataset("ds_1", wait=30), {"status": "importing"}, 40.0),
        (lambda client: client.load_model("pets"), {"state": "ready"}, 40.0),
        (lambda client: client.plan("ds_1", recipe="mnist"), {"steps": 1}, 100.0),
    ],
    ids=["job, 60 s", "job, 30 s", "job", "dataset, 30 s", "load", "plan"],
)
def test_an_answer_that_the_server_keeps_back_is_waited_for_longer(timeouts, call, answer, seconds):
    with server(json_answer(answer), json_answer(answer)) as (client, _):
        for own in (20.0, 200.0):
            with Client(client.server, timeout=own) as patient:
                call(patient)
    assert timeouts == [(5.0, seconds), (5.0, 200.0)]


def test_a_job_that_runs_on_is_answered_after_the_wait_and_not_given_up_before():
    def slowly(handler: Handler) -> None:
        time.sleep(0.3)
        handler.send(200, {"state": "running"})

    with server(slowly) as (client, told), Client(client.server, timeout=0.1) as hasty:
        assert hasty.job("job_1", wait=0.2) == {"state": "running"}
    assert told.requests[0][1] == "/v1/jobs/job_1?wait=0.2"


def test_waiting_for_a_job_ends_with_it():
    running, ended = json_answer({"state": "running"}), json_answer({"state": "failed"})
    with server(stream(("1-0", "failed"), clean=True), ended, running, ended) as (client, told):
        assert client.wait("job_1")["state"] == "failed"
        assert client.wait("job_1", timeout=100)["state"] == "failed"
    assert [path for _, path, *_ in told.requests[2:]] == ["/v1/jobs/job_1?wait=30.0"] * 2


def test_waiting_for_longer_than_one_likes_is_a_timeout_that_tells_the_state():
    paused = json_answer({"state": "paused"})
    with server(*[paused] * 100) as (client, told):
        with pytest.raises(TimeoutError, match=r"job_1 has not ended within 0.01 s: it is paused, .* resumed"):
            client.wait("job_1", timeout=0.01)
        asked = len(told.requests)
        with pytest.raises(TimeoutError):
            client.wait("job_1", timeout=0)
    assert len(told.requests) == asked + 1


def test_a_server_that_classifies_is_ready_whatever_else_is_missing():
    with server(json_answer(DEGRADED), json_answer(NOT_READY, 503)) as (client, _):
        assert (client.ready(), client.ready()) == (True, False)


def test_what_is_not_ready_is_told_also_where_the_server_does_not_classify():
    with server(json_answer(DEGRADED), json_answer(NOT_READY, 503), html_answer(502, b"bad gateway")) as (client, _):
        assert (client.readiness(), client.readiness()) == (DEGRADED, NOT_READY)
        with pytest.raises(Problem, match="bad gateway"):
            client.readiness()


def test_which_model_is_asked_to_explain_is_left_to_the_server_where_none_is_named():
    with server(*[json_answer(RESULTS)] * 3, overlay_answer) as (client, told):
        assert client.explain(b"picture")["version"] == 3
        client.explain(b"picture", model="pets@3", class_index=1)
        client.preprocess(b"picture")
        client.overlay(b"picture", model="pets")
    assert [(method, path) for method, path, *_ in told.requests] == [
        ("POST", "/v1/explain"),
        ("POST", "/v1/explain?model=pets%403&class_index=1"),
        ("POST", "/v1/preprocess"),
        ("POST", "/v1/explain?model=pets"),
    ]


def test_lists_are_chosen_from_and_as_long_as_the_server_has_them_unless_a_length_is_asked_for():
    page = json_answer({"data": [], "has_more": False, "next": None})
    with server(*[page] * 6) as (client, told):
        client.jobs()
        client.jobs(archived=True)
        client.jobs(limit=7, dataset="ds_1", model="pets@3")
        client.datasets()
        client.datasets(name="my pets", status="ready,importing")
        client.models()
    assert [path for _, path, *_ in told.requests] == [
        "/v1/jobs",
        "/v1/jobs?archived=true",
        "/v1/jobs?limit=7&dataset=ds_1&model=pets%403",
        "/v1/datasets",
        "/v1/datasets?name=my+pets&status=ready%2Cimporting",
        "/v1/models",
    ]


def test_one_alias_comes_with_the_etag_of_all():
    def answer(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("ETag", '"5f1c"')
        handler.send_header("Content-Length", "14")
        handler.end_headers()
        handler.wfile.write(b'{"version": 3}')

    with server(away, answer) as (client, told):
        assert client.alias("pets", "production") == ({"version": 3}, '"5f1c"')
    assert told.requests[1][:2] == ("GET", "/v1/models/pets/aliases/production")


def test_no_proxy_stands_before_this_machine_itself(monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with server(json_answer({"data": []})) as (client, _):
        assert client.jobs() == {"data": []}


def test_an_alias_is_deleted_only_where_the_aliases_are_those_that_were_seen():
    def gone(handler: Handler) -> None:
        handler.send(204, b"")

    with server(gone, gone) as (client, told):
        client.delete_alias("pets", "nightly", if_match='"5f1c"')
        client.delete_alias("pets", "nightly")
    assert [headers.get("if-match") for _, _, headers, _ in told.requests] == ['"5f1c"', None]


def test_the_example_of_the_api_page_works_as_it_stands(tmp_path, monkeypatch, capsys):
    page = (Path(__file__).parents[2] / "docs" / "api.md").read_text().split("## From Python")[1]
    example = page.split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    for name in ("images.zip", "cat.jpg", "dog.jpg"):
        Path(name).write_bytes(b"content")
    cat = {"top_k": [{"label": "cat", "probability": 0.934}], "error": None}
    bad = {"top_k": [], "error": {"message": "This is no image."}}
    with server(
        json_answer({"id": "ds_1", "job": {"id": "job_1"}}, 202),
        json_answer({"id": "job_1", "state": "succeeded"}),
        json_answer({"id": "job_2"}, 202),
        stream(("1769860801250-0", "epoch"), ("1769860802250-0", "succeeded"), clean=True),
        json_answer({"model": "pets", "version": 1, "results": [cat, bad]}),
        json_answer({"code": "model_not_found", "hint": "models here: pets"}, 404),
    ) as (client, told):
        exec(example.replace("http://127.0.0.1:8000", client.server), {})
    assert [path.partition("?")[0] for _, path, *_ in told.requests] == [
        "/v1/datasets",
        "/v1/jobs/job_1",
        "/v1/jobs",
        "/v1/jobs/job_2/events",
        "/v1/classify",
        "/v1/classify",
    ]
    printed = capsys.readouterr().out
    assert all(text in printed for text in ("2026-01-31", "cat.jpg cat", "no image", "model_not_found models here"))


def test_names_from_people_stay_one_segment_of_the_path():
    with server(json_answer({"name": "x"})) as (client, told):
        client.model("../jobs?x")
    assert told.requests[0][1] == "/v1/models/..%2Fjobs%3Fx"
