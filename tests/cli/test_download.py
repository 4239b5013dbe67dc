"""Downloads are whole or absent, over whatever connection."""

import hashlib
import json
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from resnetd import download
from resnetd.client import Client
from resnetd.errors import Problem, Refused, Unreachable

CONTENT = random.Random(0).randbytes(300_000)
ARTIFACT: dict[str, Any] = {
    "name": "bundle.zip",
    "bytes": len(CONTENT),
    "sha256": hashlib.sha256(CONTENT).hexdigest(),
    "href": "/v1/jobs/job_1/artifacts/bundle.zip",
}


@contextmanager
def serving(answer: Callable[[BaseHTTPRequestHandler, int], None]) -> Iterator[tuple[Client, list[str | None]]]:
    """A server that answers GET with `answer(handler, its number)`, and the Range of each; HEAD tells the length.

    It has one version of one model.
    """
    asked: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()

        def do_GET(self) -> None:
            if self.path == "/v1/models/pets@3":
                body = json.dumps({"versions": [{"version": 3, "weights_sha256": ARTIFACT["sha256"]}]}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                return
            asked.append(self.headers["Range"])
            answer(self, len(asked))

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        with Client(f"http://127.0.0.1:{server.server_port}") as client:
            yield client, asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def cut(handler: BaseHTTPRequestHandler, pieces: int) -> None:
    """Send the rest that is asked for, `pieces` bytes of it, and break off."""
    first = int((handler.headers["Range"] or "bytes=0-")[6:-1])
    assert handler.headers["If-Range"] == f'"{ARTIFACT["sha256"]}"'
    handler.send_response(206 if first else 200)
    handler.send_header("Content-Length", str(len(CONTENT) - first))
    handler.end_headers()
    handler.wfile.write(CONTENT[first : first + pieces])
    handler.close_connection = True


@pytest.fixture
def target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(download, "_PAUSE_SECONDS", 0.0)
    return tmp_path / "bundle.zip"


def test_a_download_goes_on_where_the_connection_broke(target):
    counted: list[int] = []
    with serving(lambda handler, _: cut(handler, 100_000)) as (client, asked):
        client.download(ARTIFACT, target, on_bytes=counted.append)
    assert target.read_bytes() == CONTENT
    assert sum(counted) == len(CONTENT)
    assert asked[0] is None
    assert len(asked) >= 3
    assert all(each is not None for each in asked[1:])
    assert list(target.parent.iterdir()) == [target]


def test_a_connection_that_always_breaks_is_given_up_and_leaves_nothing(target):
    breaking = serving(lambda handler, number: cut(handler, 10 if number == 1 else 0))
    with breaking as (client, asked), pytest.raises(Unreachable):
        client.download(ARTIFACT, target)
    assert 5 <= len(asked) <= 7
    assert list(target.parent.iterdir()) == []


def test_other_bytes_than_were_promised_are_refused_and_what_was_there_stays(target):
    target.write_bytes(b"old")

    def flip(handler: BaseHTTPRequestHandler, _: int) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(CONTENT)))
        handler.end_headers()
        handler.wfile.write(CONTENT[:-1] + bytes([CONTENT[-1] ^ 1]))

    with serving(flip) as (client, _), pytest.raises(Refused, match="did not arrive"):
        client.download(ARTIFACT, target)
    assert target.read_bytes() == b"old"
    assert list(target.parent.iterdir()) == [target]


def test_a_refusal_is_the_servers_own(target):
    def refuse(handler: BaseHTTPRequestHandler, _: int) -> None:
        body = b'{"code": "artifact_gone", "detail": "It is gone."}'
        handler.send_response(404)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    with serving(refuse) as (client, asked), pytest.raises(Problem, match="artifact_gone"):
        client.download(ARTIFACT, target)
    assert len(asked) == 1


def test_a_versions_weights_go_on_where_the_connection_broke(target):
    with serving(lambda handler, _: cut(handler, 100_000)) as (client, asked):
        client.download_model("pets", 3, str(target), form="weights")
    assert target.read_bytes() == CONTENT
    assert asked[0] is None
    assert len(asked) >= 3
    assert list(target.parent.iterdir()) == [target]


def test_other_weights_than_those_of_the_version_are_refused_and_leave_nothing(target):
    def other(handler: BaseHTTPRequestHandler, _: int) -> None:
        assert handler.path == "/v1/models/pets/versions/3/download?format=weights"
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(CONTENT)))
        handler.end_headers()
        handler.wfile.write(bytes(len(CONTENT)))

    with serving(other) as (client, _), pytest.raises(Refused, match="pets@3 did not arrive"):
        client.download_model("pets", 3, target, form="weights")
    assert list(target.parent.iterdir()) == []


def test_a_bundle_is_taken_as_it_comes(target):
    def bundle(handler: BaseHTTPRequestHandler, _: int) -> None:
        assert handler.path == "/v1/models/pets/versions/3/download?format=bundle"
        handler.send_response(200)
        handler.send_header("Content-Length", "2")
        handler.end_headers()
        handler.wfile.write(b"PK")

    with serving(bundle) as (client, _):
        client.download_model("pets", 3, str(target))
    assert target.read_bytes() == b"PK"
