"""Bodies that come too slowly are cut off, and those that only take long are not."""

import math
import socket
import threading
import time
from http.client import HTTPResponse

import pytest
from edge_kit import IMAGE, Server
from samples import tiny_zip

from app import bodies, protocol
from app.bodies import GRACE_SECONDS, IDLE_SECONDS, MIN_RATE, WHOLE_SECONDS, patience

HEAD = "{} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n"


def answer(connection: socket.socket) -> HTTPResponse:
    """The next answer, read to its end."""
    found = HTTPResponse(connection)
    found.begin()
    found.read()
    return found


def answer_of(connection: socket.socket) -> bytes:
    """All that comes until the server closes; a timeout fails the test."""
    received = b""
    while piece := connection.recv(65536):
        received += piece
    return received


def test_a_body_has_a_grace_then_a_rate_then_an_end():
    assert patience(0, 0.0, seconds=WHOLE_SECONDS) == GRACE_SECONDS
    assert patience(0, GRACE_SECONDS, seconds=WHOLE_SECONDS) == 0
    assert patience(10 * MIN_RATE, 15.0, seconds=WHOLE_SECONDS) == GRACE_SECONDS - 5  # ten seconds' worth came in 15
    assert patience(10**9, 119.0, seconds=WHOLE_SECONDS) == 1
    assert patience(10**9, 119.0, seconds=math.inf) == IDLE_SECONDS
    assert patience(10**9, 10**9, seconds=math.inf) < 0


@pytest.mark.parametrize("request_line", ["PUT /v1/classify", "PUT /v1/datasets", "POST /v1/jobs"])
def test_a_body_that_trickles_is_answered_408_and_the_connection_closed(server: Server, monkeypatch, request_line):
    monkeypatch.setattr(bodies, "GRACE_SECONDS", 0.3)
    with socket.create_connection(server.address, timeout=10) as connection:
        connection.sendall(HEAD.format(request_line, 1000).encode() + b"abc")
        received = answer_of(connection)
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408")
    assert b"connection: close" in head.lower()
    assert b"upload_too_slow" in body
    assert list(server.layout.uploads.iterdir()) == []


def test_a_classification_has_so_long_in_all_and_a_dataset_as_long_as_its_rate_allows(server: Server, monkeypatch):
    monkeypatch.setattr(bodies, "WHOLE_SECONDS", 0.4)
    monkeypatch.setattr(bodies, "MIN_RATE", 1)
    ended = {}
    for request_line in ("PUT /v1/classify", "PUT /v1/datasets"):
        with socket.create_connection(server.address, timeout=10) as connection:
            connection.sendall(HEAD.format(request_line, 10).encode())
            for each in tiny_zip()[:10]:
                threading.Event().wait(0.1)
                try:
                    connection.sendall(bytes([each]))
                except ConnectionError:  # it was cut off already
                    break
            ended[request_line] = connection.recv(4096)[:12]
    assert ended == {"PUT /v1/classify": b"HTTP/1.1 408", "PUT /v1/datasets": b"HTTP/1.1 202"}


def test_the_rest_of_a_refused_body_is_not_awaited_for_long(server: Server, monkeypatch):
    monkeypatch.setattr(protocol, "LINGER_SECONDS", 0.3)
    with socket.create_connection(server.address, timeout=10) as connection:
        connection.sendall(HEAD.format("POST /v1/classify", 99_999_999_999).encode())
        began = time.monotonic()
        assert answer_of(connection).startswith(b"HTTP/1.1 413")
        assert time.monotonic() - began < 8


def test_a_refused_body_that_comes_in_time_keeps_its_connection(server: Server, monkeypatch):
    monkeypatch.setattr(protocol, "LINGER_SECONDS", 1.0)
    with socket.create_connection(server.address, timeout=10) as connection:
        connection.sendall(HEAD.format("POST /v1/nothing", 5).encode())
        assert answer(connection).status == 404
        connection.sendall(b"12345")
        threading.Event().wait(1.3)
        connection.sendall(HEAD.format("PUT /v1/classify", len(IMAGE)).encode() + IMAGE)
        assert answer(connection).status == 200
