"""How an HTTP process leaves: it says so, answers what still comes, ends what it began, and exits with 0."""

import asyncio
import contextlib
import signal
import socket
import sys
import time
from collections.abc import Iterator
from http.client import HTTPResponse
from pathlib import Path

import httpx
import pytest
import uvicorn
from http_process import http_process
from samples import tiny_zip
from uvicorn.server import ServerState
from waiting import wait_for

from app.drain import Drain
from app.protocol import HttpProtocol
from resnetd.parts import Part, Parts
from store.layout import Layout

GET = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"


def answer(connection: socket.socket) -> HTTPResponse:
    """The next answer, read to its end."""
    found = HTTPResponse(connection)
    found.begin()
    found.read()
    return found


def unready(url: str) -> httpx.Response | None:
    """What /readyz says as soon as its process leaves."""
    told = httpx.get(f"{url}/readyz", timeout=20)
    return None if told.json()["parts"]["server"]["ready"] else told


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def test_while_it_leaves_it_answers_and_closes_each_connection_with_its_answer_and_ends_what_it_began(
    layout: Layout, redis_url: str, listener: socket.socket
) -> None:
    address = listener.getsockname()
    with contextlib.ExitStack() as stack:
        leaving = http_process(layout, redis_url, listener=listener, RESNETD_DRAIN_DELAY_SECONDS="1.5")
        running, url = stack.enter_context(leaving)
        idle, upload = (stack.enter_context(socket.create_connection(address, timeout=20)) for _ in range(2))
        idle.sendall(GET)
        assert answer(idle).headers["connection"] is None
        archive = tiny_zip()
        head = b"PUT /v1/datasets HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
        upload.sendall(head % len(archive) + archive[:3])
        wait_for(lambda: list(layout.uploads.iterdir()))
        running.send_signal(signal.SIGTERM)
        began = time.monotonic()
        ready = wait_for(lambda: unready(url))
        assert (ready.status_code, ready.headers["connection"]) == (503, "close")
        idle.sendall(GET)  # a connection that was open before is good for one request more
        last = answer(idle)
        assert (last.status, last.headers["connection"]) == (200, "close")
        assert idle.recv(4096) == b""
        time.sleep(max(began + 2.0 - time.monotonic(), 0))  # longer than the delay: now it takes nothing new
        assert running.poll() is None
        upload.sendall(archive[3:])
        last = answer(upload)
        assert (last.status, last.headers["connection"]) == (202, "close")
        assert running.wait(10) == 0


def test_a_person_who_stops_it_waits_for_nobody(layout: Layout, redis_url: str, listener: socket.socket) -> None:
    address = listener.getsockname()
    with (
        http_process(layout, redis_url, listener=listener, RESNETD_DRAIN_DELAY_SECONDS="60") as (running, _),
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
        wait_for(each.ready)
    Parts(parts)._stop_all()
    assert order.read_text().split()[0] == "http"
    assert sorted(order.read_text().split()) == ["fleet", "http", "redis"]
    assert [each.process.returncode for each in parts if each.process] == [0, 0, 0, -signal.SIGKILL]
