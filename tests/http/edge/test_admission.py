"""Which classification requests are taken in: by number, by key, by bytes; what is refused is refused at once."""

import contextlib
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator

import httpx
import pytest
from edge_kit import IMAGE, Server, problem, serving
from fastapi.routing import APIRoute, iter_route_contexts
from waiting import wait_for

from app import door
from app.admission import admitted
from app.doorkeeper import COMPUTING
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
    assert min(took) < 0.02  # this machine has other things to do meanwhile


def test_a_refused_request_leaves_its_connection_good_for_the_next(narrow: Server):
    with httpx.Client(base_url=narrow.url) as client:
        with under_way(narrow, 2):
            first = client.post("/v1/classify", content=IMAGE * 10_000)
            port = first.extensions["network_stream"].get_extra_info("client_addr")[1]
        wait_for(lambda: narrow.http.post("/v1/classify", content=IMAGE).status_code == 200)
        second = client.post("/v1/classify", content=IMAGE)
        assert (first.status_code, second.status_code) == (503, 200)
        assert second.extensions["network_stream"].get_extra_info("client_addr")[1] == port


HEAD = "POST /v1/classify HTTP/1.1\r\nHost: localhost\r\n"


@contextlib.contextmanager
def arriving(server: Server, sent: int, *, of: int, headers: str = "") -> Iterator[socket.socket]:
    """A request whose body has `of` bytes, of which `sent` are there when the block begins."""
    before = server.state.admission.held_bytes
    with socket.create_connection(server.address, 10) as connection:
        connection.sendall(f"{HEAD}{headers}Content-Length: {of}\r\n\r\n".encode() + bytes(sent))
        wait_for(lambda: server.state.admission.held_bytes == before + sent)
        yield connection


def test_who_announces_much_and_sends_little_takes_no_place_from_others(narrow: Server):
    with arriving(narrow, 10, of=290_000):
        large = IMAGE + bytes(150_000)
        assert narrow.http.post("/v1/classify", content=large).status_code == 200
    wait_for(lambda: narrow.state.admission.held_bytes == 0)


def test_what_has_no_place_beside_what_is_held_is_refused_before_it_is_read(narrow: Server):
    with arriving(narrow, 200_000, of=290_000), socket.create_connection(narrow.address, 10) as more:
        more.sendall(f"{HEAD}Content-Length: 150000\r\n\r\n".encode())  # and not a byte of the body
        assert status_of(more) == b"HTTP/1.1 503 Service Unavailable"
        with socket.create_connection(narrow.address, 10) as least:
            least.sendall(f"{HEAD}Content-Length: {len(IMAGE)}\r\n\r\n".encode() + IMAGE)
            assert status_of(least) == b"HTTP/1.1 200 OK"  # a little goes beside it
    assert 'admission_refusals_total{reason="bytes"}' in narrow.http.get("/metrics").text


@pytest.mark.parametrize("length", ["Content-Length: 200000", "Transfer-Encoding: chunked"])
def test_of_bodies_that_turn_out_too_many_the_one_that_finds_no_place_goes_and_the_others_go_on(
    narrow: Server, length: str
):
    chunked = "chunked" in length
    with arriving(narrow, 100_000, of=190_000) as first, socket.create_connection(narrow.address, 10) as second:
        second.sendall(f"{HEAD}{length}\r\n\r\n".encode())
        piece = bytes(100_000)
        second.sendall(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        wait_for(lambda: narrow.state.admission.held_bytes == 200_000)
        first.sendall(IMAGE + bytes(80_000))
        wait_for(lambda: narrow.state.admission.held_bytes == 280_000 + len(IMAGE))
        second.sendall(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        assert status_of(second) == b"HTTP/1.1 503 Service Unavailable"
        wait_for(lambda: narrow.state.admission.held_bytes == 180_000 + len(IMAGE))  # what it held is free at once
        first.sendall(bytes(10_000 - len(IMAGE)))
        assert status_of(first) == b"HTTP/1.1 200 OK"
    wait_for(lambda: narrow.state.admission.held_bytes == 0)
    assert narrow.http.post("/v1/classify", content=iter([bytes(100_000)] * 4)).status_code in (200, 413, 422)


def test_one_key_has_a_part_of_the_bytes_as_it_has_of_the_requests(alone: Settings):
    narrow = {"max_requests": 4, "max_requests_per_key": 2, "max_held_bytes": 300_000}
    with serving(alone.model_copy(update={"host": "0.0.0.0", **narrow})) as server:
        greedy, modest = ({"Authorization": f"Bearer {create_key(server.layout, 'predict')}"} for _ in range(2))
        whole = IMAGE + bytes(140_000)
        with arriving(server, 100_000, of=190_000, headers=f"Authorization: {greedy['Authorization']}\r\n"):
            answer = server.http.post("/v1/classify", content=whole, headers=greedy)
            problem(answer, 429, "too_many_requests")
            assert answer.headers["retry-after"] == "1"
            assert server.http.post("/v1/classify", content=IMAGE, headers=greedy).status_code == 200
            assert server.http.post("/v1/classify", content=whole, headers=modest).status_code == 200
        wait_for(lambda: server.state.admission.held_bytes == 0)
        alone_again = server.http.post("/v1/classify", content=whole + bytes(50_000), headers=greedy)
        assert alone_again.status_code == 200  # one request alone is let in, however large


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


def engine_of(*full: str | None) -> Callable[..., bool]:
    """What says that the engines of these models are full: None of the default."""
    return lambda model, *_, **__: model in full


def test_while_an_engine_is_full_nothing_is_read_for_it_and_other_models_are_asked(server: Server, monkeypatch):
    monkeypatch.setattr(server.engines, "refusing", engine_of(None, "full@2"))
    problem(server.http.put("/v1/classify", content=IMAGE), 503, "overloaded")
    problem(server.http.post("/v1/models/full@2:classify", content=IMAGE), 503, "overloaded")
    problem(server.http.post("/v1/classify", params={"model": "full@2"}, content=IMAGE), 503, "overloaded")
    assert server.http.put("/v1/classify", params={"model": "toy"}, content=IMAGE).status_code == 200
    form = {"model": "toy"}  # what a form asks for is not known before it was read
    assert server.http.post("/v1/classify", files={"f": ("a", IMAGE)}, data=form).status_code == 200


def test_a_version_that_a_body_names_is_asked_however_full_productions_engine_is(server: Server, monkeypatch):
    """As KServe's client names it."""
    monkeypatch.setattr(server.engines, "refusing", engine_of("toy"))
    image = {"name": "image", "datatype": "BYTES", "shape": [1], "data": ["aVZCT1J3MEtHZ28="]}
    answer = server.http.post("/v2/models/toy/infer", json={"model_version": "2", "inputs": [image]})
    assert answer.status_code == 200
    assert server.engines.asked[-1][0] == "toy@2"
    raw = {"Inference-Header-Content-Length": "0"}
    assert server.http.post("/v2/models/toy/infer", content=IMAGE, headers=raw).status_code == 503  # it names none


NAMED = b'{"model": "toy", "images": [{"b64": "aVZCT1J3MEtHZ28="}]}'
FORM = b'--x\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\nan image\r\n--x--\r\n'


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("Application/JSON; charset=utf-8", NAMED),
        ("application/vnd.images+json", NAMED),
        ("MULTIPART/Form-Data; boundary=x", FORM),
        ("application/x-www-form-urlencoded", NAMED),
        ("", NAMED),
    ],
)
def test_a_body_that_may_name_another_model_is_read_however_its_type_is_written(
    server: Server, monkeypatch, content_type: str, body: bytes
):
    monkeypatch.setattr(server.engines, "refusing", engine_of(None))
    headers = {"Content-Type": content_type} if content_type else {}
    assert server.http.post("/v1/classify", content=body, headers=headers).status_code == 200


@pytest.mark.parametrize("content_type", ["", "image/jpeg", "application/x-www-form-urlencoded", "multipart/mixed"])
def test_a_body_that_is_an_image_names_none(server: Server, monkeypatch, content_type: str):
    monkeypatch.setattr(server.engines, "refusing", engine_of(None))
    monkeypatch.setattr(door, "_GLANCE_SECONDS", 5)  # this machine has other things to do meanwhile
    headers = {"Content-Type": content_type} if content_type else {}
    problem(server.http.put("/v1/classify", content=IMAGE, headers=headers), 503, "overloaded")


def test_a_body_that_does_not_begin_is_not_waited_for_at_the_door(server: Server, monkeypatch):
    monkeypatch.setattr(server.engines, "refusing", engine_of(None))
    with socket.create_connection(server.address, 10) as connection:
        connection.sendall(f"{HEAD}Content-Length: {len(NAMED)}\r\n\r\n".encode())
        wait_for(lambda: server.state.admission.requests == 1)  # it was let in, where its time is counted
        connection.sendall(NAMED)
        assert status_of(connection) == b"HTTP/1.1 200 OK"


def test_methods_that_an_address_does_not_have_are_told_so_however_full_the_engine_is(server: Server, monkeypatch):
    monkeypatch.setattr(server.engines, "refusing", engine_of(None, "toy", "toy@3"))
    shown = ["/v1/explain", "/v1/preprocess", "/v1/models/toy:explain", "/v1/models/toy:preprocess"]
    for path in (*shown, "/v2/models/toy/versions/3/infer"):
        assert server.http.post(path, content=IMAGE).status_code == 503
        assert server.http.put(path, content=IMAGE).status_code == (503 if path in shown else 405)
        assert server.http.patch(path, content=IMAGE).status_code == 405


def test_the_door_asks_for_what_the_address_does_and_by_the_length_of_the_body(server: Server, monkeypatch):
    asked = []
    monkeypatch.setattr(server.engines, "refusing", lambda *what, **more: asked.append((*what, more["size"])))
    shown = ("/v1/models/toy:explain", "/v1/models/toy:preprocess", "/v1/explain?model=toy@2", "/v1/preprocess")
    inferring = ("/v2/models/toy@2/infer", "/v2/models/toy/versions/3/infer", "/v2/models/toy/infer")
    for path in (*shown, *inferring, "/v1/classify"):
        server.http.post(path, content=IMAGE)
    for path in inferring:
        server.http.post(path, content=IMAGE, headers={"Inference-Header-Content-Length": "0"})
    server.http.post("/v1/classify", content=iter([IMAGE]))
    of = len(IMAGE)
    assert asked == [
        ("toy", "explain", of),
        ("toy", "preprocess", of),
        ("toy@2", "explain", of),
        (None, "preprocess", of),
        ("toy@2", "infer", of),
        ("toy@3", "infer", of),  # and nobody of a bare name, with which the body may bring another version
        (None, "classify", of),
        *((ref, "classify", of) for ref in ("toy@2", "toy@3", "toy")),  # the body is one image
        (None, "classify", 0),  # in chunks: nobody knows
    ]


def test_the_door_stands_before_every_route_that_computes_and_no_other(settings: Settings):
    routes = [each for each in iter_route_contexts(create_app(settings).routes) if isinstance(each.route, APIRoute)]
    computing: dict[str, set[str]] = {}
    for each in routes:
        if any(on.dependency is admitted for on in each.dependencies):
            computing.setdefault(str(each.path), set()).update(each.methods or ())
    assert {template: set(methods) for template, (_, methods) in COMPUTING.items()} == computing


def test_what_the_door_refuses_is_counted_under_its_route(server: Server, monkeypatch):
    counted = server.state.metrics.requests.labels("POST", "/v1/models/{name}:classify", "503")
    before = counted._value.get()
    monkeypatch.setattr(server.engines, "refusing", lambda *_, **__: True)
    answer = server.http.post("/v1/models/toy:classify", content=IMAGE)
    assert answer.headers["x-request-id"] == problem(answer, 503, "overloaded")["request_id"]
    wait_for(lambda: counted._value.get() == before + 1)  # it is recorded when the answer is out


def test_who_has_no_key_is_told_so_however_full_the_engine_is(alone: Settings, monkeypatch):
    with serving(alone.model_copy(update={"host": "0.0.0.0"})) as server:
        create_key(server.layout, "predict")
        monkeypatch.setattr(server.engines, "refusing", lambda *_, **__: True)
        for path in ("/v1/classify", "/v1/models/toy:explain", "/v2/models/toy/infer"):
            assert server.http.post(path, content=IMAGE).status_code == 401


def test_a_model_whose_engine_is_full_can_still_be_unloaded(server: Server, monkeypatch):
    monkeypatch.setattr(server.engines, "refusing", lambda *_, **__: True)
    assert server.http.post("/v2/models/toy/versions/3/infer", json={}).status_code == 503
    answer = server.http.post("/v2/repository/models/absent/unload")
    assert answer.status_code == 404  # it was looked for


def test_processes_share_the_limits_and_each_has_room_for_one():
    assert Limits(10, 5, 100).share(4) == Limits(3, 2, 25)
    assert Limits(1, 1, 1).share(64) == Limits(1, 1, 1)


def test_a_keys_part_of_the_bytes_is_its_part_of_the_requests():
    assert Limits(requests=1024, per_key=512, bytes=1000).bytes_per_key == 500
    assert Limits(requests=2, per_key=512, bytes=1000).bytes_per_key == 1000


def test_what_enters_leaves_and_a_request_alone_is_always_let_in():
    told: Counter[str] = Counter()
    admission = Admission(Limits(requests=2, per_key=1, bytes=100), tell=lambda reason: told.update([reason]))
    large = admission.enter("a", announced=1000)
    large.hold(1000)
    with pytest.raises(TooManyError):
        admission.enter("a", announced=1)
    with pytest.raises(UnavailableError):
        admission.enter("b", announced=1)  # too much beside the large one; it leaves nothing behind
    large.leave()
    first, second = admission.enter("b", announced=90), admission.enter(None, announced=90)
    first.hold(40)
    second.hold(60)
    second.hold(50)  # it has held more already
    with pytest.raises(UnavailableError):
        second.hold(61)
    with pytest.raises(UnavailableError):
        admission.enter(None, announced=0)
    first.leave()
    second.hold(90)
    second.leave()
    assert (admission.requests, admission.held_bytes) == (0, 0)
    assert (admission._by_key, admission._bytes_by_key) == (Counter(), Counter())
    assert told == {"key": 1, "bytes": 2, "requests": 1}


def test_a_key_that_holds_its_part_of_the_bytes_may_send_no_more_and_others_may():
    admission = Admission(Limits(requests=4, per_key=2, bytes=100), tell=lambda _: None)
    first, second, other = (
        admission.enter("a", announced=0),
        admission.enter("a", announced=0),
        admission.enter("b", announced=0),
    )
    first.hold(40)
    second.hold(10)
    with pytest.raises(TooManyError):
        second.hold(11)
    other.hold(50)
    second.leave()
    with pytest.raises(UnavailableError):
        first.hold(51)  # alone of its key, and too much beside the other
    third = admission.enter("a", announced=10)
    third.hold(10)  # what left has made room
    third.leave()
    other.leave()
    first.hold(1000)
    first.leave()
    assert admission._bytes_by_key == Counter()
