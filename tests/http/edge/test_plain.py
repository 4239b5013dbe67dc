"""The plainest request, which the protocol answers without the application: with what the application would say."""

import asyncio
import gc
import logging
import socket
import time
import weakref
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from edge_kit import BAD_IMAGE, IMAGE, Server
from http_messages import answer_of, asking

from app import plain, protocol
from app.plain import Plain

OK = b"HTTP/1.1 200 OK"


@pytest.fixture
def plainly(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of requests that were answered without the application."""
    answered: list[str] = []
    answer = Plain.answer

    async def watched(self: Plain, request: plain.PlainRequest) -> tuple[bytes, bytes]:
        answered.append(request.scope["path"])
        return await answer(self, request)

    monkeypatch.setattr(Plain, "answer", watched)
    return answered


@pytest.fixture
def connection(server: Server) -> Iterator[socket.socket]:
    with socket.create_connection(server.address, 10) as connection:
        yield connection


def told(body: bytes) -> dict[str, Any]:
    """A document without what differs from one request to the next."""
    found: dict[str, Any] = orjson.loads(body)
    found.get("timings_ms", {}).pop("total", None)
    return {name: value for name, value in found.items() if name != "request_id"}


@pytest.mark.parametrize(
    ("address", "body", "fields", "status"),
    [
        ("/v1/classify", IMAGE, {}, b"200"),
        ("/v1/classify", IMAGE, {"Content_Type": "image/png", "X_Request_Id": "mine"}, b"200"),
        ("/v1/models/toy@3:classify", IMAGE, {"Content_Type": "application/x-www-form-urlencoded"}, b"200"),
        ("/v1/classify", BAD_IMAGE, {}, b"422"),
        ("/v1/models/unknown:classify", IMAGE, {}, b"404"),
        ("/v1/models/busy:classify", IMAGE, {}, b"503"),
        ("/v1/models/late:classify", IMAGE, {}, b"504"),
        ("/v1/models/bug:classify", IMAGE, {}, b"500"),
        ("/v1/classify", IMAGE, {"Authorization": "Bearer none"}, b"401"),
        ("/v1/classify", IMAGE, {"Host": "elsewhere.example"}, b"403"),
    ],
)
def test_it_is_answered_as_the_application_would(
    plainly: list[str], connection: socket.socket, *, address: str, body: bytes, fields: dict[str, str], status: bytes
):
    connection.sendall(asking(address, body=body, **fields))
    answer = answer_of(connection)
    assert plainly == [address]
    connection.sendall(asking(f"{address}?top_k=5", body=body, **fields))
    by_the_application = answer_of(connection)
    assert len(plainly) == 1
    assert answer[0] == by_the_application[0]
    assert answer[0].split()[1] == status
    assert told(answer[2]) == told(by_the_application[2])
    assert answer[1].keys() == by_the_application[1].keys()
    for name in (b"content-type", b"retry-after", b"www-authenticate", b"x-content-type-options"):
        assert answer[1].get(name) == by_the_application[1].get(name)
    assert (answer[1][b"x-request-id"] == b"mine") is ("X_Request_Id" in fields)


@pytest.mark.parametrize(
    ("address", "body", "fields"),
    [
        ("/v1/classify?top_k=1", IMAGE, {}),
        ("/v1/classify", b'{"images": []}', {}),
        ("/v1/classify", b'{"images": []}', {"Content_Type": "application/json"}),
        ("/v1/classify", IMAGE, {"Content_Type": "multipart/form-data; boundary=b"}),
        ("/v1/classify", IMAGE, {"X_Forwarded_For": "203.0.113.7"}),
        ("/v1/classify", b"", {}),
        ("/v1/explain", IMAGE, {}),
        (f"/v1/models/{'n' * 201}:classify", IMAGE, {}),
        ("/v1/nothing", IMAGE, {}),
    ],
)
def test_whatever_is_not_plain_is_the_applications(
    plainly: list[str], connection: socket.socket, address: str, body: bytes, fields: dict[str, str]
):
    connection.sendall(asking(address, body=body, **fields))
    answer_of(connection)
    assert plainly == []


def test_a_long_body_and_one_of_unknown_length_are_the_applications(
    plainly: list[str], connection: socket.socket, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(plain, "_MAX_BYTES", len(IMAGE) - 1)
    connection.sendall(asking())
    assert answer_of(connection)[0] == OK
    chunk = b"%x\r\n%s\r\n0\r\n\r\n" % (len(IMAGE), IMAGE)
    head = b"POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    connection.sendall(head + chunk)
    assert answer_of(connection)[0] == OK
    assert plainly == []


def test_a_body_may_come_a_little_later_than_its_head(
    plainly: list[str], connection: socket.socket, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(protocol, "BODY_SECONDS", 30.0)
    image = IMAGE * 6_000  # more than uvicorn reads ahead
    whole = asking(body=image)
    for begin, end in ((0, 90), (90, 70_000), (70_000, len(whole))):
        connection.sendall(whole[begin:end])
        time.sleep(0.02)
    assert answer_of(connection)[0] == OK
    assert plainly == ["/v1/classify"]


def test_one_that_comes_much_later_is_the_applications(
    plainly: list[str], connection: socket.socket, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(protocol, "BODY_SECONDS", 0.01)
    whole = asking()
    connection.sendall(whole[:-5])
    time.sleep(0.2)
    connection.sendall(whole[-5:])
    assert answer_of(connection)[0] == OK
    assert plainly == []


@pytest.mark.parametrize(
    ("fields", "status"), [({"Authorization": "Bearer none"}, b"401"), ({"Host": "elsewhere.example"}, b"403")]
)
def test_nobodys_body_is_awaited_who_may_not_ask(
    connection: socket.socket, monkeypatch: pytest.MonkeyPatch, fields: dict[str, str], status: bytes
):
    monkeypatch.setattr(protocol, "BODY_SECONDS", 3600.0)
    connection.sendall(asking(**fields)[:-5])
    assert answer_of(connection)[0].split()[1] == status


def test_who_reads_no_answers_gets_no_more_of_them(server: Server, plainly: list[str], monkeypatch: pytest.MonkeyPatch):
    connection_made = protocol.HttpProtocol.connection_made

    def narrow(self: protocol.HttpProtocol, transport: asyncio.Transport) -> None:
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        transport.set_write_buffer_limits(high=1024)
        connection_made(self, transport)

    monkeypatch.setattr(protocol.HttpProtocol, "connection_made", narrow)
    asked = server.engines.asked
    asked.clear()
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(10)
        connection.connect(server.address)
        sent = 0
        while len(plainly) == sent < 1000:
            connection.sendall(asking())
            sent += 1
            end = time.monotonic() + 10
            while len(asked) < sent and time.monotonic() < end:
                time.sleep(0.001)
        assert len(plainly) < len(asked) == sent  # the last is the application's, which waits
        connection.sendall(asking())
        time.sleep(0.2)
        assert len(asked) == sent  # what comes behind it is not begun
        sent += 1
        assert [answer_of(connection)[0] for _ in range(sent)] == [OK] * sent
    assert len(asked) == sent


def test_a_connection_that_has_ended_is_gone_before_anybody_looks_for_garbage(
    server: Server, plainly: list[str], monkeypatch: pytest.MonkeyPatch
):
    made: list[weakref.ref[protocol.HttpProtocol]] = []
    connection_made = protocol.HttpProtocol.connection_made

    def noted(self: protocol.HttpProtocol, transport: asyncio.Transport) -> None:
        made.append(weakref.ref(self))
        connection_made(self, transport)

    monkeypatch.setattr(protocol.HttpProtocol, "connection_made", noted)
    gc.disable()
    try:
        with socket.create_connection(server.address, 10) as connection:
            connection.sendall(asking())
            assert answer_of(connection)[0] == OK
        end = time.monotonic() + 10
        while made[0]() is not None and time.monotonic() < end:
            time.sleep(0.01)
        assert made[0]() is None
    finally:
        gc.enable()
    assert plainly == ["/v1/classify"]


def test_a_length_may_have_any_number_of_zeros(plainly: list[str], connection: socket.socket):
    connection.sendall(asking(Content_Length="0" * 5000 + str(len(IMAGE))))
    assert answer_of(connection)[0] == OK
    assert plainly == ["/v1/classify"]


def test_a_bug_in_answering_closes_the_connection(
    server: Server, connection: socket.socket, monkeypatch: pytest.MonkeyPatch
):
    def broken(*_: object, **__: object) -> bytes:
        raise MemoryError

    monkeypatch.setattr(plain, "head_of", broken)
    connection.sendall(asking())
    assert connection.recv(1) == b""
    monkeypatch.undo()
    assert server.http.post("/v1/classify", content=IMAGE).status_code == 200


def test_requests_on_one_connection_are_answered_in_their_order(plainly: list[str], connection: socket.socket):
    connection.sendall(asking("/v1/models/unknown:classify") + asking())
    assert answer_of(connection)[0] == b"HTTP/1.1 404 Not Found"
    assert answer_of(connection)[0] == OK
    connection.sendall(asking(Connection="close"))
    status, headers, _ = answer_of(connection)
    assert (status, headers[b"connection"]) == (OK, b"close")
    assert connection.recv(1) == b""
    assert plainly[0] == "/v1/models/unknown:classify"
    assert plainly[-1] == "/v1/classify"


def test_work_ends_where_its_client_leaves(server: Server, plainly: list[str], connection: socket.socket):
    counted = server.state.metrics.requests.labels("POST", "/v1/models/{name}:classify", "499")
    before = counted._value.get()
    connection.sendall(asking("/v1/models/endless:classify"))
    assert server.engines.entered.wait(10)
    connection.close()
    assert server.engines.cancelled.wait(10)
    until_counted(server, counted, before + 1)
    assert plainly == ["/v1/models/endless:classify"]
    assert (server.state.admission.requests, server.state.admission.held_bytes) == (0, 0)


def test_who_leaves_before_his_body_is_whole_is_recorded(
    server: Server, connection: socket.socket, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(protocol, "BODY_SECONDS", 30.0)
    counted = server.state.metrics.requests.labels("POST", "/v1/classify", "499")
    before = counted._value.get()
    connection.sendall(asking()[:-3])
    time.sleep(0.05)
    connection.close()
    until_counted(server, counted, before + 1)


def test_it_is_counted_and_logged_once(
    server: Server, plainly: list[str], connection: socket.socket, caplog: pytest.LogCaptureFixture
):
    counted = server.state.metrics.requests.labels("POST", "/v1/classify", "200")
    before = counted._value.get()
    with caplog.at_level(logging.INFO, "resnetd.access"):
        connection.sendall(asking(X_Request_Id="once"))
        answer_of(connection)
        until_counted(server, counted, before + 1)
    lines = [each for each in caplog.records if getattr(each, "request_id", "") == "once"]
    assert [(each.status, each.route) for each in lines] == [(200, "/v1/classify")]  # type: ignore[attr-defined]
    assert plainly == ["/v1/classify"]


def until_counted(server: Server, counter: Any, value: float) -> None:
    end = time.monotonic() + 10
    while counter._value.get() < value and time.monotonic() < end:
        server.http.get("/livez")  # what is recorded is recorded when the answer is out
    assert counter._value.get() == value
