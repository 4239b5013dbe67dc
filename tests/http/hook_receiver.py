"""A receiver of webhooks: a real HTTP server that answers as it is told and keeps what it got."""

import base64
import hashlib
import hmac
import json
import queue
import socket
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from waiting import wait_for

KEY = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(KEY).decode()


class Receiver(ThreadingHTTPServer):
    """Answers with the statuses it was given, then with 204. A status None breaks the connection, 0 never answers."""

    daemon_threads = True

    def __init__(self, *statuses, tls: ssl.SSLContext | None = None, location=None, body=b""):
        super().__init__(("127.0.0.1", 0), Handler)
        self.scheme = "http" if tls is None else "https"
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True)
        self.statuses, self.location, self.body = list(statuses), location, body
        self.got = queue.Queue()
        self.gone = threading.Event()  # the receiver is being stopped
        self.cut = threading.Event()  # a client went away in the middle of an answer
        self.pause: threading.Event | None = None  # answers wait for it

    @property
    def port(self):
        return self.server_address[1]

    @property
    def url(self):
        return f"{self.scheme}://127.0.0.1:{self.port}/hook?for=me"

    def next(self, seconds=20.0):
        return self.got.get(timeout=seconds)

    def handle_error(self, request, client_address):
        self.cut.set()

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.gone.set()
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.put((self.path, self.headers, body))
        status = self.server.statuses.pop(0) if self.server.statuses else 204
        if status is None:
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        if status == 0:
            self.server.gone.wait(20)
            return
        if self.server.pause:
            self.server.pause.wait(20)
        self.send_response(status)
        if self.server.location:
            self.send_header("Location", self.server.location)
        if status != 204:
            self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *_):
        pass


def verified(headers, body):
    """The message, after the checks that Standard Webhooks asks of a receiver."""
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert abs(time.time() - int(headers["webhook-timestamp"])) < 60
    assert headers["content-type"] == "application/json"
    return json.loads(body)


def deliveries_settled(http, job_id):
    """The deliveries of a job, once nothing is left to be sent."""

    def told():
        body = http.get(f"/v1/jobs/{job_id}/deliveries").raise_for_status().json()
        return body if body["data"] and not body["pending"] else None

    return wait_for(told)
