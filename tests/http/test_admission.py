"""Which classification requests are taken in: by number, by key, by bytes; what is refused is refused at once."""

import contextlib
import socket
import time
from collections import Counter
from collections.abc import Iterator

import httpx
import pytest
from edge_kit import IMAGE, Server, problem, serving, wait_for
from fastapi.routing import APIRoute, iter_route_contexts

from app.admission import admitted
from app.door import COMPUTING
from app.main import create_app
from app.problems import TooManyError, UnavailableError
from app.services.admission import Admission, Limits
from store.keys import create_key
from store.settings import Settings


@contextlib.contextmanager
def under_way(server: Server, count: int, **headers: str) -> Iterator[list[socket.socket]]:
    """So many requests whose answers never come, in the house when the block begins."""
    fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = (
        f"POST /v1/classify?model=endless HTTP/1.1\r\nHost: localhost\r\n{fields}Content-Length: {len(IMAGE)}\r\n\r\n"
    )
    before = len(server.engines.asked)
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(socket.create_connection(server.address, 10)) for _ in range(count)]
        for connection in connections:
            connection.sendall(head.encode() + IMAGE)
        wait_for(lambda: len(server.engines.asked) == before + count)
        yield connections


@pytest.fixture
def narrow(alone: Settings) -> Iterator[Server]:
    """A server that holds two requests, and 300,000 bytes of them."""
    with serving(alone.model_copy(update={"max_requests": 2, "max_held_bytes": 300_000})) as server:
        yield server


def status_of(connection: socket.socket) -> bytes:
    return connection.recv(4096).split(b"\r\n", 1)[0]


def test_beyond_so_many_requests_the_answer_is_503_before_the_body_is_read_and_places_come_free_again(narrow: Server):
    with under_way(narrow, 2) as holding:
        with socket.create_connection(narrow.address, timeout=10) as connection:
            connection.sendall(b"PUT /v1/classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900000\r\n\r\n")
            assert status_of(connection) == b"HTTP/1.1 503 Service Unavailable"  # and no byte of the body was sent
        answer = narrow.http.post("/v1/classify", content=IMAGE)
        problem(answer, 503, "overloaded")
        assert answer.headers["retry-after"] == "1"
        assert narrow.http.get("/v1/models").status_code == 200  # what computes nothing goes on
        holding[0].close()  # a client that hangs up gives its place back
        wait_for(lambda: narrow.http.post("/v1/classify", content=IMAGE).status_code == 200)
    assert 'admission_refusals_total{reason="requests"}' in narrow.http.get("/metrics").text


def test_a_refusal_takes_less_than_20_milliseconds(narrow: Server):
    with under_way(narrow, 2):
        took = []
        for _ in range(50):
            began = time.perf_counter()
            assert narrow.http.post("/v1/classify", content=IMAGE * 2000).status_code == 503
            took.append(time.perf_counter() - began)
    assert sorted(took)[len(took) // 2] < 0.02  # the median: this machine has other things to do meanwhile


def test_a_refused_request_leaves_its_connection_good_for_the_next(narrow: Server):
    with httpx.Client(base_url=narrow.url) as client:
        with under_way(narrow, 2):
            first = client.post("/v1/classify", content=IMAGE * 10_000)
            port = first.extensions["network_stream"].get_extra_info("client_addr")[1]
        wait_for(lambda: narrow.http.post("/v1/classify", content=IMAGE).status_code == 200)
        second = client.post("/v1/classify", content=IMAGE)
        assert (first.status_code, second.status_code) == (503, 200)
        assert second.extensions["network_stream"].get_extra_info("client_addr")[1] == port


def test_bodies_that_are_too_much_together_are_refused_whether_their_length_was_told_or_not(narrow: Server):
    head = "POST /v1/classify HTTP/1.1\r\nHost: localhost\r\n"
    with socket.create_connection(narrow.address, 10) as holding, socket.create_connection(narrow.address, 10) as more:
        holding.sendall(f"{head}Content-Length: 290000\r\n\r\n".encode())
        wait_for(lambda: narrow.state.admission._bytes == 290_000)
        problem(narrow.http.post("/v1/classify", content=IMAGE * 1000), 503, "overloaded")
        more.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
        piece = b"1000\r\n" + bytes(0x1000) + b"\r\n"
        more.sendall(piece)
        wait_for(lambda: narrow.state.admission._bytes > 290_000)  # a little goes beside it
        more.sendall(piece * 3)
        assert status_of(more) == b"HTTP/1.1 503 Service Unavailable"
    wait_for(lambda: narrow.state.admission._bytes == 0)
    assert narrow.http.post("/v1/classify", content=iter([bytes(100_000)] * 4)).status_code in (200, 413, 422)


def test_one_key_cannot_take_all_places_and_another_is_not_disturbed(alone: Settings):
    settings = alone.model_copy(update={"host": "0.0.0.0", "max_requests_per_key": 1})
    with serving(settings) as server:
        greedy, modest = ({"Authorization": f"Bearer {create_key(server.layout, 'predict')}"} for _ in range(2))
        with under_way(server, 1, **greedy):
            answer = server.http.post("/v1/classify", content=IMAGE, headers=greedy)
            problem(answer, 429, "too_many_requests")
            assert answer.headers["retry-after"] == "1"
            assert server.http.post("/v1/classify", content=IMAGE, headers=modest).status_code == 200
        wait_for(lambda: server.http.post("/v1/classify", content=IMAGE, headers=greedy).status_code == 200)


def test_while_an_engine_is_full_nothing_is_read_for_it_and_other_models_are_asked(server: Server, monkeypatch):
    monkeypatch.setattr(server.engines, "refusing", lambda model: model in (None, "full@2"))
    problem(server.http.put("/v1/classify", content=IMAGE), 503, "overloaded")
    problem(server.http.post("/v1/models/full@2:classify", content=IMAGE), 503, "overloaded")
    problem(server.http.post("/v1/classify", params={"model": "full@2"}, content=IMAGE), 503, "overloaded")
    assert server.http.put("/v1/classify", params={"model": "toy"}, content=IMAGE).status_code == 200
    form = {"model": "toy"}  # what a form asks for is not known before it was read
    assert server.http.post("/v1/classify", files={"f": ("a", IMAGE)}, data=form).status_code == 200


def test_the_door_stands_before_every_route_that_computes_and_no_other(settings: Settings):
    routes = [each for each in iter_route_contexts(create_app(settings).routes) if isinstance(each.route, APIRoute)]
    assert {each.path for each in routes if any(on.dependency is admitted for on in each.dependencies)} == set(
        COMPUTING
    )


def test_what_the_door_refuses_is_counted_under_its_route(server: Server, monkeypatch):
    counted = server.state.metrics.requests.labels("POST", "/v1/models/{name}:classify", "503")
    before = counted._value.get()
    monkeypatch.setattr(server.engines, "refusing", lambda _: True)
    answer = server.http.post("/v1/models/toy:classify", content=IMAGE)
    assert answer.headers["x-request-id"] == problem(answer, 503, "overloaded")["request_id"]
    assert counted._value.get() == before + 1


def test_who_has_no_key_is_told_so_however_full_the_engine_is(alone: Settings, monkeypatch):
    with serving(alone.model_copy(update={"host": "0.0.0.0"})) as server:
        create_key(server.layout, "predict")
        monkeypatch.setattr(server.engines, "refusing", lambda _: True)
        for path in ("/v1/classify", "/v1/models/toy:explain", "/v2/models/toy/infer"):
            assert server.http.post(path, content=IMAGE).status_code == 401


def test_a_model_whose_engine_is_full_can_still_be_unloaded(server: Server, monkeypatch):
    monkeypatch.setattr(server.engines, "refusing", lambda _: True)
    assert server.http.post("/v2/models/toy/infer", json={}).status_code == 503
    answer = server.http.post("/v2/repository/models/absent/unload")
    assert answer.status_code == 404  # it was looked for


def test_processes_share_the_limits_and_each_has_room_for_one():
    assert Limits(10, 5, 100).share(4) == Limits(3, 2, 25)
    assert Limits(1, 1, 1).share(64) == Limits(1, 1, 1)


def test_what_enters_leaves_and_a_request_alone_is_always_let_in():
    told: Counter[str] = Counter()
    admission = Admission(Limits(requests=2, per_key=1, bytes=100), tell=lambda reason: told.update([reason]))
    large = admission.enter("a", size=1000)
    with pytest.raises(TooManyError):
        admission.enter("a", size=1)
    with pytest.raises(UnavailableError):
        admission.enter("b", size=1)  # too much beside the large one; it leaves nothing behind
    large.leave()
    first, second = admission.enter("b", size=40), admission.enter(None, size=0)
    second.hold(60)
    second.hold(50)  # it has held more already
    with pytest.raises(UnavailableError):
        second.hold(61)
    with pytest.raises(UnavailableError):
        admission.enter(None, size=0)
    first.leave()
    second.leave()
    assert (admission._requests, admission._bytes, admission._by_key) == (0, 0, Counter())
    assert told == {"key": 1, "bytes": 2, "requests": 1}
