"""The Python client: what it makes of answers, of broken connections and of streams that break off."""

import json
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resnetd.client import Client, _called
from resnetd.errors import Problem, Unreachable
from resnetd.event_stream import Event
from resnetd.sse import Message, messages

Answer = Callable[["Handler"], None]


@dataclass
class Told:
    """What a server saw: (method, path, headers, body) of each request."""

    requests: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    answers: Iterator[Answer]
    told: Told

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.told.requests.append((self.command, self.path, headers, body))
        next(self.answers)(self)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _answer  # noqa: N815 - the library's names

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        pass

    def send(self, status: int, body: object, kind: str = "application/json") -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def json_answer(body: object, status: int = 200) -> Answer:
    return lambda handler: handler.send(status, body)


def html_answer(status: int, page: bytes) -> Answer:
    return lambda handler: handler.send(status, page, "text/html")


def broken(handler: Handler) -> None:
    """The server dies in the middle of a request."""
    handler.close_connection = True


def stream(*entries: tuple[str, str], cut: bytes = b"", clean: bool = False) -> Answer:
    """An event stream of (id, type), ended cleanly or in the middle of `cut`."""

    def answer(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        text = b"".join(f'id: {at}\nevent: {kind}\ndata: {{"n": 1}}\n\n'.encode() for at, kind in entries) + cut
        handler.wfile.write(f"{len(text):x}\r\n".encode() + text + b"\r\n")
        if clean:
            handler.wfile.write(b"0\r\n\r\n")
        handler.close_connection = True

    return answer


@contextmanager
def server(*answers: Answer) -> Iterator[tuple[Client, Told]]:
    """A real HTTP server that gives these answers in order."""
    told = Told()
    handler = type("Scripted", (Handler,), {"answers": iter(answers), "told": told})
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as listening:
        listening.daemon_threads = True
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            with Client(f"http://127.0.0.1:{listening.server_address[1]}/", "secret") as client:
                yield client, told
        finally:
            listening.shutdown()
            thread.join()


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


def later(status: int, code: str) -> Answer:
    """A refusal that says when to come again: at once, so that nobody sleeps here."""

    def answer(handler: Handler) -> None:
        body = json.dumps({"title": HTTPStatus(status).phrase, "code": code, "detail": "later"}).encode()
        handler.send_response(status)
        handler.send_header("Retry-After", "0")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


away = later(503, "ledger_unavailable")


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


def overlay_answer(handler: Handler) -> None:
    handler.send_response(200)
    for name, value in {"Model": "pets", "Class-Label": "c%61t", "Class-Index": "3", "Probability": "0.5"}.items():
        handler.send_header(f"X-{name}", value)
    handler.send_header("Content-Length", "0")
    handler.end_headers()


RESULTS = {"model": "pets", "version": 3, "results": [{"index": 0}]}
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


DEGRADED = {
    "status": "degraded",
    "not_ready": ["worker"],
    "parts": {
        "engine": {"ready": True, "reason": None, "model": "pets", "version": 3},
        "worker": {"ready": False, "reason": "no worker is connected"},
    },
}
NOT_READY = {
    "status": "not_ready",
    "not_ready": ["engine"],
    "parts": {"engine": {"ready": False, "reason": "it is being started", "model": "pets", "version": 3}},
}


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


def test_uploads_have_terms_as_other_jobs_have(tmp_path):
    files = [tmp_path / name for name in ("a.zip", "b.zip")]
    for file in files:
        file.write_bytes(b"PK")
    made = json_answer({"id": "ds_1", "job": {"id": "job_1"}}, 202)
    terms: dict[str, Any] = {"priority": "high", "max_seconds": 60}
    with server(made, made, made) as (client, told):
        client.upload_dataset(files[0], name="pets", **terms)
        client.upload_dataset(files, name="pets", **terms)
        client.import_model(files[0], "pets", **terms)
    assert [path for _, path, *_ in told.requests] == [
        *["/v1/datasets?name=pets&priority=high&max_seconds=60"] * 2,
        "/v1/models",
    ]
    for name, value in terms.items():
        assert f'name="{name}"\r\n\r\n{value}\r\n'.encode() in told.requests[2][3]


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


def test_no_proxy_stands_before_this_machine_itself(monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with server(json_answer({"data": []})) as (client, _):
        assert client.jobs() == {"data": []}


def test_an_upload_streams_the_file_under_its_own_name(tmp_path):
    file = tmp_path / "pets.tar.gz"
    file.write_bytes(bytes(range(256)) * 10_000)
    sent: list[int] = []
    with server(json_answer({"id": "ds_1", "job": {"id": "job_1"}}, 202)) as (client, told):
        client.upload_dataset(file, on_bytes=sent.append)
    method, path, headers, body = told.requests[0]
    assert (method, path) == ("POST", "/v1/datasets?name=pets")
    assert headers["content-length"] == str(len(body))
    assert "transfer-encoding" not in headers
    assert body == file.read_bytes()
    assert sum(sent) == len(body)
    assert len(sent) == 3


def test_several_files_are_sent_as_one_form_called_like_their_folder(tmp_path):
    folder = tmp_path / "fashion.v2"
    folder.mkdir()
    files = [folder / "train-images", folder / "train-labels"]
    for number, file in enumerate(files):
        file.write_bytes(bytes([number]) * 1_500_000)
    sent: list[int] = []
    with server(json_answer({"id": "ds_1", "job": {"id": "job_1"}}, 202)) as (client, told):
        client.upload_dataset(files, on_bytes=sent.append)
    method, path, headers, body = told.requests[0]
    assert (method, path) == ("POST", "/v1/datasets?name=fashion.v2")
    assert headers["content-type"].startswith("multipart/form-data")
    assert headers["content-length"] == str(len(body))
    assert all(b'filename="%s"' % file.name.encode() in body and file.read_bytes() in body for file in files)
    assert (sum(sent), max(sent) < 1_000_000) == (3_000_000, True)


@pytest.mark.parametrize("kind", ["dataset", "dataset of several files", "model"])
def test_an_upload_that_is_refused_for_a_moment_is_sent_again_whole_under_the_same_key(tmp_path, kind):
    files = [tmp_path / name for name in ("a.zip", "b.zip")]
    for file in files:
        file.write_bytes(bytes(range(256)) * 10_000)
    sent: list[int] = []
    made = json_answer({"id": "ds_1", "job": {"id": "job_1"}}, 202)
    with server(away, broken, made, away) as (client, told):

        def upload(**more):
            if kind == "model":
                return client.import_model(files[0], "mine", **more)
            return client.upload_dataset(files[0] if kind == "dataset" else files, **more)

        assert upload(on_bytes=sent.append)["id"] == "ds_1"
        client._patience = -1.0
        with pytest.raises(Problem) as refused:
            upload(idempotency_key="mine")
    keys = [headers["idempotency-key"] for _, _, headers, _ in told.requests]
    assert (len(set(keys[:3])), keys[3], refused.value.idempotency_key) == (1, "mine", "mine")
    assert len({len(body) for *_, body in told.requests}) == 1
    assert all(
        body.count(files[0].read_bytes()) == len(files) - (kind != "dataset of several files")
        for *_, body in told.requests
    )
    assert sum(sent) == 2_560_000 * (2 if kind == "dataset of several files" else 1)


def test_files_that_are_links_are_called_like_the_folder_they_were_named_in(tmp_path, monkeypatch):
    for name in ("blobs", "fashion/inner"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("images", "labels"):
        (tmp_path / "blobs" / name).write_bytes(b"data")
        (tmp_path / "fashion" / name).symlink_to(tmp_path / "blobs" / name)
    accepted = json_answer({"id": "ds_1", "job": {"id": "job_1"}}, 202)
    with server(accepted, accepted, accepted) as (client, told):
        client.upload_dataset([tmp_path / "fashion" / "images", tmp_path / "fashion" / "labels"])
        monkeypatch.chdir(tmp_path / "fashion")
        client.upload_dataset([Path("images"), Path("labels")])
        monkeypatch.chdir("inner")
        client.upload_dataset([Path("../images"), Path("../labels")])
    assert [path for _, path, _, _ in told.requests] == ["/v1/datasets?name=fashion"] * 3


def test_a_file_may_be_named_by_text_and_one_need_not_stand_in_a_list(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("cat.jpg", "dog.jpg", "pets.zip", "model.pth"):
        Path(name).write_bytes(name.encode())
    made, found = json_answer({"id": "ds_1", "job": {"id": "job_1"}}, 202), json_answer(RESULTS)
    with server(*[found] * 4, made, made, made, found) as (client, told):
        for images in ("cat.jpg", Path("cat.jpg"), ["cat.jpg", Path("dog.jpg"), b"picture"], b"picture"):
            client.classify(images)
        for files in ("pets.zip", ["cat.jpg", "dog.jpg"]):
            client.upload_dataset(files)
        client.import_model("model.pth", "pets")
        client.explain("cat.jpg", model="pets")
    bodies = [body for *_, body in told.requests]
    named = [[n for n in ("cat.jpg", "dog.jpg", "image-0", "image-2") if f'"{n}"'.encode() in body] for body in bodies]
    assert named[:4] == [["cat.jpg"], ["cat.jpg"], ["cat.jpg", "dog.jpg", "image-2"], ["image-0"]]
    assert (bodies[4], named[5], bodies[7]) == (b"pets.zip", ["cat.jpg", "dog.jpg"], b"cat.jpg")
    assert told.requests[4][1] == "/v1/datasets?name=pets"
    assert b'filename="model.pth"' in bodies[6]


def test_a_file_without_a_folder_or_a_stem_still_gives_a_name():
    assert _called([Path("/images.gz"), Path("/labels.gz")]) == "images"
    assert _called([Path("folder/.zip")]) == ".zip"


def test_an_upload_of_no_files_says_so_and_sends_nothing():
    with server() as (client, told), pytest.raises(ValueError, match="one file at least"):
        client.upload_dataset([])
    assert told.requests == []


def test_a_stream_that_breaks_off_is_taken_up_behind_the_last_whole_event():
    with server(
        stream(("1-0", "queued"), ("2-0", "running"), cut=b"id: 3-0\nevent: progress\nda"),
        broken,
        json_answer({"title": "Service Unavailable", "code": "redis_away", "detail": "", "hint": None}, 503),
        stream(("3-0", "progress"), clean=True),
        stream(clean=True),
        json_answer({"state": "running"}),
        stream(("4-0", "succeeded"), clean=True),
    ) as (client, told):
        events = list(client.events("job_1"))
    assert [event.id for event in events] == ["1-0", "2-0", "3-0", "4-0"]
    assert events[0] == Event("1-0", "queued", {"n": 1})
    asked = [headers.get("last-event-id") for _, path, headers, _ in told.requests if path.endswith("/events")]
    assert asked == [None, "2-0", "2-0", "2-0", "3-0", "3-0"]


def test_a_history_is_asked_for_as_pages_of_json():
    page = {"data": [{"id": "1-0", "type": "queued", "data": {}}], "has_more": False, "next": None}
    with server(json_answer(page)) as (client, told):
        assert list(client.history("job_1")) == [Event("1-0", "queued", {})]
    assert told.requests[0][2]["accept"] == "application/json"


def test_an_event_tells_when_it_happened():
    assert Event("1769860801250-3", "epoch", {}).at == datetime(2026, 1, 31, 12, 0, 1, 250_000, tzinfo=UTC)


def test_a_job_that_had_ended_before_the_given_event_gives_no_more_events():
    with server(stream(cut=b"event: end\ndata: {}\n\n", clean=True), json_answer({"state": "failed"})) as (
        client,
        told,
    ):
        assert list(client.events("job_1", after="9-0")) == []
    assert told.requests[0][2]["last-event-id"] == "9-0"


def test_a_server_that_is_gone_is_waited_for_as_long_as_the_patience_lasts():
    with Client("http://127.0.0.1:9") as client, pytest.raises(Unreachable, match=r"127\.0\.0\.1:9"):
        list(client.events("job_1", patience=0.3))


def test_a_stream_that_is_refused_is_a_problem():
    body = {"title": "Not Found", "code": "job_not_found", "detail": "", "hint": None}
    with server(json_answer(body, 404)) as (client, _), pytest.raises(Problem):
        list(client.events("job_1"))


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


def test_messages_are_read_as_the_standard_says():
    lines = ["retry: 2000", "", ": hello", "", "id: 1", "event: a", "data: {", "data:}", "", "data: 2", "", "data: cut"]
    assert list(messages(lines)) == [Message("1", "a", "{\n}"), Message("1", "message", "2")]


@settings(deadline=None)
@given(st.lists(st.tuples(st.from_regex(r"[1-9]\d*-\d", fullmatch=True), st.sampled_from("ab"), st.text("xy: \n"))))
def test_what_is_written_as_messages_is_read_as_them(sent):
    text = "".join(
        f"id: {at}\nevent: {kind}\n" + "".join(f"data: {part}\n" for part in data.split("\n")) + "\n: x\n\n"
        for at, kind, data in sent
    )
    assert list(messages(text.split("\n"))) == [Message(*each) for each in sent]
