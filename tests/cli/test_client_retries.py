"""What the client sends again, under which key, for how long, and what it never repeats."""

import socketserver
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from scripted_server import (
    RESULTS,
    Answer,
    Handler,
    Told,
    away,
    broken,
    html_answer,
    json_answer,
    later,
    overlay_answer,
    server,
)

from resnetd.client import Client
from resnetd.errors import Problem, Unreachable


def test_a_training_sent_again_after_a_broken_connection_has_the_same_idempotency_key():
    with server(broken, broken, json_answer({"id": "job_1"}, 202)) as (client, told):
        assert client.train("ds_1", recipe="mnist")["id"] == "job_1"
    keys = [headers["idempotency-key"] for _, _, headers, _ in told.requests]
    assert len(keys) == 3
    assert len(set(keys)) == 1
    assert len({body for *_, body in told.requests}) == 1


def test_a_server_that_keeps_breaking_is_given_up():
    with server(*[broken] * 4) as (client, told), pytest.raises(Unreachable):
        client.job("job_1")
    assert len(told.requests) == 4


def test_a_503_is_outwaited_under_the_same_key_and_said_once():
    said: list[object] = []
    with server(away, away, json_answer({"id": "job_1"}, 202)) as (client, told):
        client._on_wait = said.append
        assert client.train("ds_1", recipe="mnist")["id"] == "job_1"
    assert len({headers["idempotency-key"] for _, _, headers, _ in told.requests}) == 1
    assert [str(each) for each in said] == ["Service Unavailable (503, ledger_unavailable): later"]


def test_who_gives_up_waiting_is_told_the_key():
    with server(away) as (client, _):
        client._patience = -1.0
        with pytest.raises(Problem) as refused:
            client.train("ds_1", recipe="mnist", idempotency_key="mine")
    assert refused.value.idempotency_key == "mine"


def test_a_503_without_a_time_and_a_request_that_may_not_be_repeated_are_told_at_once():
    with server(json_answer({}, 503), away, away, away) as (client, told):
        with pytest.raises(Problem):
            client.jobs()
        with pytest.raises(Problem):
            client.roll_back("pets", "production")
        with pytest.raises(Problem):
            client.set_alias("pets", "production", 3, if_match='"5f1c"')
        with pytest.raises(Problem):
            client.delete_alias("pets", "production", if_match='"5f1c"')
    assert len(told.requests) == 4


CHANGING_NOTHING: dict[str, tuple[Callable[[Client, Path], object], Answer]] = {
    "classify": (lambda client, file: client.classify([file, b"picture"]), json_answer(RESULTS)),
    "explain": (lambda client, file: client.explain(file, model="pets"), json_answer(RESULTS)),
    "overlay": (lambda client, file: client.overlay(file, model="pets"), overlay_answer),
    "preprocess": (lambda client, file: client.preprocess(file, model="pets"), json_answer(RESULTS)),
    "plan": (lambda client, _: client.plan("ds_1", recipe="mnist"), json_answer({"steps": 1})),
    "plan_curve": (lambda client, _: client.plan_curve("ds_1", recipe="mnist"), html_answer(200, b"<svg/>")),
}


@pytest.mark.parametrize("name", CHANGING_NOTHING)
def test_what_changes_nothing_is_sent_again_whole(tmp_path, name):
    call, answer = CHANGING_NOTHING[name]
    file = tmp_path / "cat.jpg"
    file.write_bytes(bytes(range(256)) * 1000)
    with server(later(429, "too_many_requests"), away, broken, answer) as (client, told):
        call(client, file)
    assert len(told.requests) == 4
    assert len({len(body) for *_, body in told.requests}) == 1
    if "plan" not in name:
        assert all(file.read_bytes() in body for *_, body in told.requests)


def test_who_is_asked_to_come_again_after_the_patience_has_ended_does_not_wait():
    def tomorrow(handler: Handler) -> None:
        handler.send_response(429)
        handler.send_header("Retry-After", "86400")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    with server(tomorrow) as (client, told), pytest.raises(Problem):
        client.classify(b"picture")
    assert len(told.requests) == 1


def test_a_server_that_is_being_started_again_is_waited_for():
    waiting = threading.Event()
    handler = type("Scripted", (Handler,), {"answers": iter([json_answer({"id": "job_1"})]), "told": Told()})
    with socketserver.TCPServer(("127.0.0.1", 0), handler, bind_and_activate=False) as starting:
        starting.server_bind()  # the address is its own, and whoever connects is refused
        starting.timeout = 20

        def start() -> None:
            waiting.wait(10)
            starting.server_activate()
            starting.handle_request()

        thread = threading.Thread(target=start)
        thread.start()
        with Client(f"http://127.0.0.1:{starting.server_address[1]}", on_wait=lambda _: waiting.set()) as client:
            assert client.job("job_1") == {"id": "job_1"}
        thread.join()


def test_a_deletion_that_was_done_unheard_is_done():
    with server(broken, json_answer({"code": "job_not_found"}, 404), json_answer({}, 404)) as (client, _):
        client.delete_job("job_1")
        with pytest.raises(Problem):
            client.delete_job("job_1")


VERBS = ["cancel", "pause", "resume", "finish", "checkpoint", "retry"]


@pytest.mark.parametrize("verb", [*VERBS, "change"])
def test_a_verb_is_sent_again_under_its_key_and_under_the_key_that_is_given(verb):
    done = json_answer({"id": "job_1"}, 202)
    arguments: list[object] = ["job_1", {"lr": 0.1}] if verb == "change" else ["job_1"]
    with server(broken, done, away) as (client, told):
        getattr(client, verb)(*arguments)
        client._patience = -1.0
        with pytest.raises(Problem) as refused:
            getattr(client, verb)(*arguments, idempotency_key="mine")
    first, again, given_key = (headers["idempotency-key"] for _, _, headers, _ in told.requests)
    assert (first == again, given_key, refused.value.idempotency_key) == (True, "mine", "mine")


def test_a_server_that_is_gone_is_waited_for_as_long_as_the_patience_lasts():
    with Client("http://127.0.0.1:9") as client, pytest.raises(Unreachable, match=r"127\.0\.0\.1:9"):
        list(client.events("job_1", patience=0.3))
