"""A real HTTP server that gives the answers of a script, for tests of the client and of commands."""

import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler

from resnetd.client import Client

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


def overlay_answer(handler: Handler) -> None:
    handler.send_response(200)
    for name, value in {"Model": "pets", "Class-Label": "c%61t", "Class-Index": "3", "Probability": "0.5"}.items():
        handler.send_header(f"X-{name}", value)
    handler.send_header("Content-Length", "0")
    handler.end_headers()


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
RESULTS = {"model": "pets", "version": 3, "results": [{"index": 0}]}
