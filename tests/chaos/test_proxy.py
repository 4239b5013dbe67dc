"""The relay does to connections what its modes say."""

import contextlib
import socket
import socketserver
import threading
import time

import pytest
from proxy import Proxy


class Echo(socketserver.ThreadingTCPServer):
    """Answers a line with the line, and remembers that it did."""

    allow_reuse_address = True
    daemon_threads = True

    class Handler(socketserver.StreamRequestHandler):
        def handle(self):
            with contextlib.suppress(ConnectionError):
                for line in self.rfile:
                    self.server.carried_out.append(line)
                    self.wfile.write(line)


@pytest.fixture
def echo():
    server = Echo(("127.0.0.1", 0), Echo.Handler)
    server.carried_out = []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def proxy(echo):
    proxy = Proxy(echo.server_address).start()
    yield proxy
    proxy.stop()


def connect(proxy):
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=5)


def ask(connection, line=b"hello\n"):
    connection.sendall(line)
    return connection.recv(100)


def test_it_passes_on_what_is_said_both_ways(proxy):
    with connect(proxy) as one, connect(proxy) as other:
        assert ask(one) == b"hello\n"
        assert ask(other, b"other\n") == b"other\n"


def test_a_cut_is_a_reset_and_the_next_connection_passes(proxy):
    with connect(proxy) as one:
        ask(one)
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            one.recv(100)
    with connect(proxy) as again:
        assert ask(again) == b"hello\n"


def test_a_silent_connection_stays_open_and_says_nothing_even_after_new_ones_pass_again(proxy, echo):
    with connect(proxy) as old:
        ask(old)
        proxy.silence()
        with connect(proxy) as young:
            for connection in (old, young):
                connection.settimeout(0.2)
                with pytest.raises(TimeoutError):
                    ask(connection)
            proxy.restore()
            with connect(proxy) as new:
                assert ask(new) == b"hello\n"
            with pytest.raises(TimeoutError):
                ask(old)
    assert len(echo.carried_out) == 2


def test_latency_delays_an_answer(proxy):
    proxy.latency = 0.1
    with connect(proxy) as one:
        began = time.monotonic()
        ask(one)
        assert time.monotonic() - began >= 0.2


def test_a_lost_reply_was_carried_out(proxy, echo):
    proxy.lose_replies = 1.0
    with connect(proxy) as one:
        one.sendall(b"hello\n")
        with pytest.raises(ConnectionResetError):
            one.recv(100)
    assert echo.carried_out == [b"hello\n"]
    assert proxy.lost_replies == 1


def test_a_lifetime_ends_connections_by_itself(proxy):
    proxy.lifetime = (0.05, 0.1)
    with connect(proxy) as one, pytest.raises(ConnectionResetError):
        one.recv(100)
    assert proxy.cuts == 1
