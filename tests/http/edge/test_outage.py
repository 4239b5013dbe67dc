"""Redis away, silent or back, and clients that stop reading: who is told what, and when."""

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import httpx
import pytest
from edge_kit import IMAGE, Server, claimed, problem, serving, sse_messages, train
from waiting import wait_for

from app import protocol
from app.services.ledger import _THREADS
from jobs import archive
from jobs.ledger import Ledger
from store.layout import Layout
from store.settings import Settings


@pytest.fixture
def silent(tmp_path) -> Iterator[Server]:
    """A server whose Redis accepts connections and never answers, as after a cut that nobody noticed."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1024)
        url = f"redis://127.0.0.1:{listener.getsockname()[1]}/0"
        layout = Layout(tmp_path / "data").create()
        with serving(Settings(data=layout.root, redis_url=url)) as server:
            yield server


CALLS = [
    ("GET", "/v1/jobs", None),
    ("GET", "/v1/jobs/job_1", None),
    ("GET", "/v1/jobs/job_1?wait=30", None),
    ("GET", "/v1/jobs/job_1/events", None),
    ("POST", "/v1/jobs/job_1/cancel", None),
    ("POST", "/v1/jobs/job_1/retry", None),
    ("PATCH", "/v1/jobs/job_1", {"priority": "low"}),
    ("DELETE", "/v1/jobs/job_1", None),
    ("POST", "/v1/datasets", {"zip": 1}),
]


def test_every_job_call_is_told_within_a_second_that_a_silent_ledger_is_away(silent):
    silent.http.get("/v1/jobs")  # the first request of a process has more to do
    took = []
    for method, path, body in CALLS:
        silent.state.ledger._away_until = 0.0  # each finds out by itself
        began = time.monotonic()
        answer = silent.http.request(method, path, json=body)
        took.append(time.monotonic() - began)
        problem(answer, 503, "ledger_unavailable")
        assert answer.headers["retry-after"]
    *rest, longest = sorted(took)
    assert max(rest) < 1.0, took
    assert longest < 1.5, took  # this machine has other things to do meanwhile
    assert "same Idempotency-Key" in silent.http.post("/v1/jobs/job_1/cancel").json()["hint"]


def test_a_crowd_of_job_calls_neither_piles_up_threads_nor_slows_a_classification(silent):
    def ask() -> float:
        began = time.monotonic()
        problem(silent.http.get("/v1/jobs"), 503, "ledger_unavailable")
        return time.monotonic() - began

    def classify() -> float:
        began = time.monotonic()
        assert silent.http.post("/v1/classify", content=IMAGE).status_code == 200
        return time.monotonic() - began

    before = most = threading.active_count()
    with ThreadPoolExecutor(24) as crowd, ThreadPoolExecutor(1) as other:
        waiting = [crowd.submit(ask) for _ in range(48)]
        classified = other.submit(classify)
        while not all(each.done() for each in waiting):
            most = max(most, threading.active_count())
            time.sleep(0.005)
    clients, some = 24 + 1, 6  # of the dispatcher of webhooks, of the disk
    assert before + clients < most <= before + clients + _THREADS + some
    assert max(each.result() for each in waiting) < 3.0
    assert classified.result() < 1.0
    ready = silent.http.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
    assert "ledger" in ready.json()["not_ready"]


def test_a_client_that_stops_reading_is_cut_off_and_holds_little_until_then(server, dataset, idle, monkeypatch):
    monkeypatch.setattr(protocol, "STALLED_SECONDS", 0.3)
    job_id = train(server.http, dataset).json()["id"]
    claim = claimed(idle, job_id)
    for number in range(16):
        idle.emit(claim, number + 1, [("log", {"message": "x" * 1_000_000})])
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(20)
        client.connect(server.address)
        head = f"GET /v1/jobs/{job_id}/events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
        client.sendall(head.encode())
        begun = b""
        while b"event: queued" not in begun:  # the answer's head goes out before the follower is counted
            begun += client.recv(64)
        wait_for(lambda: not server.state.jobs.feeds.followers)
        left = 0
        with suppress(ConnectionResetError):
            while piece := client.recv(1 << 20):
                left += len(piece)
        assert left < 8_000_000  # of 16: what the kernel held
    idle.succeed(claim, {})


def test_events_that_have_left_redis_are_read_from_disk_without_gap_or_double(server, dataset, idle):
    job_id = train(server.http, dataset).json()["id"]
    claim = claimed(idle, job_id)
    for burst in range(30):
        idle.emit(claim, burst + 1, [("log", {"n": burst * 10 + n}) for n in range(10)])
    assert archive.spill(idle, server.layout, job_id, keep=10) == 292
    idle.succeed(claim, {})
    url = f"/v1/jobs/{job_id}/events"
    seen, after, more = [], None, True
    while more:
        query = {"limit": 70, **({"after": after} if after else {})}
        page = server.http.get(url, params=query, headers={"Accept": "application/json"}).json()
        seen += page["data"]
        more, after = page["has_more"], page["next"]
    assert [each["data"]["n"] for each in seen if each["type"] == "log"] == list(range(300))
    streamed = sse_messages(server.http.get(url, headers={"Accept": "text/event-stream"}).text)
    assert [each["id"] for each in streamed[:-1]] == [each["id"] for each in seen]
    assert (streamed[-1]["event"], streamed[-1]["data"]) == ("end", {"state": "succeeded"})


def test_a_stream_may_end_where_the_history_ends_now(http, dataset, idle: Ledger):
    job_id = train(http, dataset).json()["id"]
    url, lines = f"/v1/jobs/{job_id}/events", {"Accept": "application/x-ndjson"}
    claimed(idle, job_id)
    found = http.get(url, headers=lines, params={"follow": "false"})
    assert found.headers["vary"] == "Accept, Last-Event-ID"
    assert [httpx.Response(200, text=line).json()["type"] for line in found.text.splitlines()] == ["queued", "running"]
    stream = http.get(url, headers={"Accept": "text/event-stream"}, params={"follow": "false"}).text
    assert [each["event"] for each in sse_messages(stream)] == ["queued", "running"]  # and no `end`: it goes on
