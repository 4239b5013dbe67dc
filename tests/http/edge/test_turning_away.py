"""Who is turned away by the protocol, before the application: how it is answered, and that the connection goes on."""

import json
import socket
import time
from collections.abc import Iterator

import pytest
from edge_kit import IMAGE, Server, serving
from http_messages import answer_of, asking

from app.doorkeeper import Doorkeeper
from store.settings import Settings

REFUSED, SERVED = b"HTTP/1.1 503 Service Unavailable", b"HTTP/1.1 200 OK"


@pytest.fixture
def full(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """Its default engine is full, and that of `toy` is not. What the protocol does not turn away is let in."""
    monkeypatch.setattr(server.engines, "refusing", lambda model, *_, **__: model is None)
    return server


@pytest.fixture
def connection(full: Server) -> Iterator[socket.socket]:
    with socket.create_connection(full.address, 10) as connection:
        yield connection


def test_the_answer_is_that_of_a_refusal_by_the_application(full: Server, connection: socket.socket):
    connection.sendall(asking(X_Request_Id="mine", body=IMAGE, Content_Type="image/jpeg"))
    status, headers, body = answer_of(connection)
    by_the_application = full.http.post("/v1/nothing", content=IMAGE)
    assert status == REFUSED
    assert json.loads(body) == {
        "type": "urn:resnetd:problem:overloaded",
        "title": "Service Unavailable",
        "status": 503,
        "detail": "The model's engine is full.",
        "instance": "/v1/classify",
        "code": "overloaded",
        "request_id": "mine",
        "hint": "Ask again later, slower.",
        "errors": [],
    }
    shared = {name.lower() for name in by_the_application.headers}
    assert {name.decode() for name in headers} == shared | {"retry-after"}
    assert (headers[b"retry-after"], headers[b"x-request-id"]) == (b"1", b"mine")


def test_it_is_refused_before_a_byte_of_the_body_where_the_head_says_that_it_is_an_image(
    full: Server, connection: socket.socket
):
    connection.sendall(asking(Content_Length="900000", Content_Type="image/jpeg", body=b""))
    assert answer_of(connection)[0] == REFUSED


def test_no_100_continue_comes_before_a_refusal(full: Server, connection: socket.socket):
    connection.sendall(asking(Content_Length="9000", Content_Type="image/jpeg", Expect="100-continue", body=b""))
    assert answer_of(connection)[0] == REFUSED


def test_the_connection_is_good_for_the_next_request_however_the_body_comes(full: Server, connection: socket.socket):
    whole = asking(body=IMAGE * 500, Content_Type="image/jpeg")
    for piece in (whole[:300], whole[300:900], whole[900:]):
        connection.sendall(piece)
        time.sleep(0.02)
    assert answer_of(connection)[0] == REFUSED
    connection.sendall(asking("/v1/models/toy:classify"))
    assert answer_of(connection)[0] == SERVED


def test_a_chunked_body_is_refused_too(full: Server, connection: socket.socket):
    head = "POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"%x\r\n%s\r\n" % (len(IMAGE), IMAGE)
    connection.sendall(head.encode() + chunk + chunk + b"0\r\n\r\n" + asking("/v1/models/toy:classify"))
    assert answer_of(connection)[0] == REFUSED
    assert answer_of(connection)[0] == SERVED


def test_requests_that_come_together_are_answered_in_their_order(full: Server, connection: socket.socket):
    """Far more than Python nests calls."""
    refused, served = asking(), asking("/v1/models/toy:classify")
    connection.sendall(refused + served + refused * 1500 + served)
    received = b""
    while received.count(b"HTTP/1.1 ") < 1503 or not received.endswith(b"}"):
        received += connection.recv(1 << 20)
    statuses = [line for line in received.replace(b"}HTTP", b"}\r\nHTTP").split(b"\r\n") if line.startswith(b"HTTP")]
    assert statuses == [REFUSED, SERVED, *[REFUSED] * 1500, SERVED]


def test_who_wants_no_further_request_is_told_that_the_connection_ends(full: Server, connection: socket.socket):
    connection.sendall(asking(Connection="close"))
    status, headers, _ = answer_of(connection)
    assert (status, headers[b"connection"]) == (REFUSED, b"close")
    assert connection.recv(1) == b""


def test_a_connection_that_is_idle_after_a_refusal_is_closed_in_time(alone: Settings, monkeypatch: pytest.MonkeyPatch):
    """Also where the body came after the answer, and with it the end of uvicorn's own timer."""
    with serving(alone) as server, socket.create_connection(server.address, 30) as connection:
        monkeypatch.setattr(server.engines, "refusing", lambda *_, **__: True)
        body = IMAGE * 100
        connection.sendall(asking(Content_Length=str(len(body)), Content_Type="image/jpeg", body=b""))
        assert answer_of(connection)[0] == REFUSED
        connection.sendall(body)
        began = time.monotonic()
        assert connection.recv(1) == b""
        assert 3 < time.monotonic() - began < 9  # uvicorn's default is 5 s


def test_a_request_with_a_broken_body_is_answered_once_and_the_connection_ends(full: Server, connection: socket.socket):
    head = "POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    connection.sendall(head.encode() + b"no length\r\n")
    status, headers, body = answer_of(connection)
    assert status in (REFUSED, b"HTTP/1.1 400 Bad Request")
    assert connection.recv(65536) == b"" or headers.get(b"connection") == b"close"
    assert json.loads(body)["code"] in ("overloaded", "invalid_http")


def test_it_is_counted_once_as_a_request_and_as_a_refusal(full: Server, connection: socket.socket):
    counted = full.state.metrics.requests.labels("POST", "/v1/classify", "503")
    refused = full.state.metrics.refused.labels("engine")
    before = counted._value.get(), refused._value.get()
    connection.sendall(asking())
    answer_of(connection)
    full.http.get("/livez")  # what is recorded is recorded when the answer is out
    assert (counted._value.get(), refused._value.get()) == (before[0] + 1, before[1] + 1)


def test_one_that_is_refused_by_the_first_byte_of_its_body_is_counted_once(full: Server, connection: socket.socket):
    refused = full.state.metrics.refused.labels("engine")
    before = refused._value.get()
    whole = asking()
    connection.sendall(whole[: -len(IMAGE)])
    time.sleep(0.02)
    connection.sendall(whole[-len(IMAGE) :])
    assert answer_of(connection)[0] == REFUSED
    assert refused._value.get() == before + 1


def test_what_is_too_large_ever_is_not_told_to_come_again(full: Server, connection: socket.socket):
    connection.sendall(asking(Content_Length="1000001", Content_Type="image/jpeg", body=b""))
    status, _, body = answer_of(connection)
    assert status.startswith(b"HTTP/1.1 413 ")
    assert json.loads(body)["code"] == "body_too_large"


def test_who_is_let_in_was_asked_about_once(server: Server, monkeypatch: pytest.MonkeyPatch):
    asked = []
    monkeypatch.setattr(server.engines, "refusing", lambda *what, **_: asked.append(what))
    assert server.http.post("/v1/classify", content=IMAGE).status_code == 200
    assert len(asked) == 1


def test_while_nobody_can_tell_whether_an_engine_is_full_the_application_answers(
    server: Server, monkeypatch: pytest.MonkeyPatch
):
    def unreadable(*_: object, **__: object) -> bool:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(server.engines, "refusing", unreadable)
    assert server.http.post("/v1/classify", content=IMAGE).status_code == 200


def test_the_doorkeeper_looks_no_further_than_it_must(server: Server):
    """An address where nothing is computed, and a method that its address does not have, are no business of his."""
    keeper = Doorkeeper(server.state)
    for method, path in (("GET", "/v1/models"), ("GET", "/v1/classify"), ("POST", "/v1/jobs")):
        assert keeper.asked({"type": "http", "method": method, "path": path}) is None
