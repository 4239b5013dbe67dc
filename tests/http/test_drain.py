"""How an HTTP process leaves: it says so, answers what still comes, ends what it began, and exits with 0."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from http.client import HTTPResponse
from pathlib import Path

import httpx
import pytest
import uvicorn
from samples import tiny_zip
from uvicorn.server import ServerState

from app.drain import Drain
from app.protocol import HttpProtocol
from resnetd.parts import Part, Parts
from store import redis_account
from store.layout import Layout

GET = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"


def answer(connection: socket.socket) -> HTTPResponse:
    """The next answer, read to its end."""
    found = HTTPResponse(connection)
    found.begin()
    found.read()
    return found


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "data").create()


@contextlib.contextmanager
def http_process(layout: Layout, redis: Layout, listener: socket.socket, **more: str) -> Iterator[subprocess.Popen]:
    """`python -m app` on a socket that stays open when it leaves, as under `resnetd up`."""
    environment = {**os.environ, "RESNETD_DATA": str(layout.root), "REDIS_URL": redis_account.url(redis), **more}
    command = [sys.executable, "-m", "app", "--fd", str(listener.fileno())]
    started = subprocess.Popen(command, env=environment, pass_fds=[listener.fileno()], stderr=subprocess.DEVNULL)
    try:
        yield started
    finally:
        started.kill()
        started.wait()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def test_while_it_leaves_it_answers_and_closes_each_connection_with_its_answer_and_ends_what_it_began(
    layout: Layout, redis_layout: Layout, listener: socket.socket
) -> None:
    address = listener.getsockname()
    url = f"http://127.0.0.1:{address[1]}"
    with contextlib.ExitStack() as stack:
        running = stack.enter_context(http_process(layout, redis_layout, listener, RESNETD_DRAIN_DELAY="1.5"))
        idle, upload = (stack.enter_context(socket.create_connection(address, timeout=20)) for _ in range(2))
        idle.sendall(GET)
        assert answer(idle).headers["connection"] is None
        archive = tiny_zip()
        head = b"PUT /v1/datasets HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
        upload.sendall(head % len(archive) + archive[:3])
        while not list(layout.uploads.iterdir()):
            assert running.poll() is None
            time.sleep(0.01)
        running.send_signal(signal.SIGTERM)
        began = time.monotonic()
        while True:
            ready = httpx.get(f"{url}/readyz", timeout=20)
            if ready.json()["parts"]["server"]["ready"]:
                continue
            assert (ready.status_code, ready.headers["connection"]) == (503, "close")
            break
        idle.sendall(GET)  # a connection that was open before is good for one request more
        last = answer(idle)
        assert (last.status, last.headers["connection"]) == (200, "close")
        assert idle.recv(4096) == b""
        while time.monotonic() < began + 2.0:  # longer than the delay: now it takes nothing new
            time.sleep(0.05)
        assert running.poll() is None
        upload.sendall(archive[3:])
        last = answer(upload)
        assert (last.status, last.headers["connection"]) == (202, "close")
        assert running.wait(10) == 0


def test_a_person_who_stops_it_waits_for_nobody(layout: Layout, redis_layout: Layout, listener: socket.socket) -> None:
    address = listener.getsockname()
    with (
        http_process(layout, redis_layout, listener, RESNETD_DRAIN_DELAY="60") as running,
        socket.create_connection(address, timeout=20) as connection,
    ):
        connection.sendall(GET)
        assert answer(connection).status == 200
        running.send_signal(signal.SIGINT)
        assert running.wait(10) == 0


def test_a_connection_is_not_closed_behind_an_answer_that_did_not_say_so() -> None:
    """The signal comes when the answer's head has gone out: its client will ask there again."""
    state = ServerState()

    async def interrupted(_scope, _receive, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        for connection in state.connections:
            connection.close_with_answer()
        await send({"type": "http.response.body", "body": b"ok"})

    async def asked_twice() -> list[bytes]:
        config = uvicorn.Config(interrupted, lifespan="off", log_config=None)
        config.load()
        loop = asyncio.get_running_loop()
        async with await loop.create_server(
            lambda: HttpProtocol(config=config, server_state=state, app_state={}), "127.0.0.1", 0
        ) as server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            answers = []
            for _ in range(2):
                writer.write(GET)
                answers.append(await asyncio.wait_for(reader.readuntil(b"\r\n\r\nok"), 20))
            writer.close()
            await writer.wait_closed()
        return answers

    for answered in asyncio.run(asked_twice()):
        assert answered.startswith(b"HTTP/1.1 200")
        assert b"connection: close" not in answered


def test_lately_is_as_long_as_one_says() -> None:
    drain = Drain()
    assert not drain.lately(1e9)
    drain.asked()
    assert drain.lately(60)
    assert not drain.lately(0)


def test_a_part_stops_after_all_that_lean_on_it_and_one_that_does_not_stop_is_killed(tmp_path: Path) -> None:
    order = tmp_path / "order"
    tell = f"import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: (open({str(order)!r}, 'a').write("
    tell += "sys.argv[1] + ' '), sys.exit())); open(sys.argv[2], 'w').close(); time.sleep(60)"
    deaf = "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); open(sys.argv[2], 'w').close(); "
    deaf += "time.sleep(60)"

    def part(name: str, code: str, *leans_on: str) -> Part:
        begun = tmp_path / name
        return Part(
            name,
            [sys.executable, "-c", code, name, str(begun)],
            ready=begun.exists,
            leans_on=leans_on,
            stop_seconds=0.5 if code is deaf else 20,
        )

    parts = [part("redis", tell), part("fleet", tell), part("http", tell, "fleet", "redis"), part("deaf", deaf, "http")]
    for each in parts:
        each.start()
        while not each.ready():
            time.sleep(0.01)
    Parts(parts)._stop_all()
    assert order.read_text().split()[0] == "http"
    assert sorted(order.read_text().split()) == ["fleet", "http", "redis"]
    assert [each.process.returncode for each in parts if each.process] == [0, 0, 0, -signal.SIGKILL]
