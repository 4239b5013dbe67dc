"""API manners: problems, request ids, scopes, metrics, and what happens when a part is away."""

import asyncio
import contextlib
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator

import httpx
import pytest
from edge_kit import IMAGE, Server, operations, own_redis, problem, serving, train
from fastapi import FastAPI
from fastapi.routing import APIRoute, iter_route_contexts
from samples import tiny_zip
from starlette.exceptions import HTTPException
from waiting import wait_for

from app import handlers, protocol
from app.auth import scope_of
from app.main import create_app
from store import redis_account
from store.keys import Scope, create_key, list_keys, revoke_key
from store.layout import Layout
from store.settings import Settings

OPEN = {"/", "/livez", "/readyz", "/openapi.json", "/docs", "/docs/oauth2-redirect"}
OPEN |= {"/v2", "/v2/health/live", "/v2/health/ready"}


def test_unknown_addresses_and_methods_are_problems(http):
    problem(http.get("/nope"), 404, "not_found")
    answer = http.patch("/v1/classify")
    problem(answer, 405, "method_not_allowed")
    problem(http.delete("/v1/jobs"), 405, "method_not_allowed")


@pytest.mark.parametrize(
    ("sent", "kept"), [("abc-123_X.y", True), ("x" * 129, False), ("a b", False), ("é".encode(), False), ("", False)]
)
def test_a_request_id_is_kept_where_it_is_plain_else_made(http, sent, kept):
    got = http.get("/livez", headers={"X-Request-ID": sent}).headers["x-request-id"]
    assert (got == sent) if kept else got.startswith("req_")


def test_every_answer_carries_a_request_id_and_nosniff(http):
    for path in ("/", "/nope", "/v1/models", "/openapi.json", "/docs", "/metrics"):
        headers = http.get(path).headers
        assert headers["x-request-id"]
        assert headers["x-content-type-options"] == "nosniff"


def test_the_page_of_the_interface_loads_nothing_from_elsewhere(http):
    page = http.get("/docs").text
    parts = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(parts) == 3
    for part in parts:
        assert part.startswith("/docs/static/")
        assert http.get(part).raise_for_status().content


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/v1/jobs", "/v1/models"])
def test_head_is_get_without_its_body(http, path):
    got, head = http.get(path), http.head(path)
    assert (head.status_code, head.content) == (got.status_code, b"")
    assert head.headers["content-type"] == got.headers["content-type"]
    assert int(head.headers["content-length"]) > 0
    assert http.get(path).status_code == got.status_code  # the connection is good for the next request


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("OPTIONS", "/v1/classify", "POST, PUT"),
        ("DELETE", "/v1/jobs", "GET, HEAD, POST"),
        (
            "DELETE",
            "/v1/models/toy:explain",
            "POST, PUT",
        ),  # the address of a model, which takes any name, is another one
        ("POST", "/livez", "GET, HEAD"),
        ("POST", "/v1/jobs/job_x/events", "GET"),  # a stream has no head
        ("GET", "/v2/models/toy/infer", "POST"),
    ],
)
def test_allow_names_all_methods_of_an_address(http, method, path, allowed):
    answer = http.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)


def test_every_documented_method_is_one_that_is_allowed(http):
    documented: dict[str, set[str]] = {}
    for name, _ in operations(http.get("/openapi.json").json()):
        method, path = name.split()
        documented.setdefault(path.replace("{", "").replace("}", ""), set()).add(method)
    for path, methods in documented.items():
        allowed = set(http.request("OPTIONS", path).headers["allow"].split(", "))
        assert allowed - {"HEAD"} == methods, path


def test_a_stream_has_no_head(http):
    assert http.head("/v1/jobs/job_x/events").status_code == 405


def test_discovery_names_addresses_that_answer(http):
    links = http.get("/").json()["links"]
    assert {"classify", "datasets", "jobs", "models", "readyz", "metrics", "openapi"} <= set(links)
    for path in links.values():
        assert http.get(path).status_code in (200, 405), path


def test_every_route_declares_its_scope(settings):
    routes = [each for each in iter_route_contexts(create_app(settings).routes) if isinstance(each.route, APIRoute)]
    assert len(routes) >= 20
    lacking = {each.path for each in routes if scope_of(each) is None} - OPEN
    assert lacking == set()
    assert {scope_of(each) for each in routes if each.path not in OPEN} == set(Scope) - {Scope.ADMIN}  # it has them all


@pytest.fixture
def guarded(alone: Settings) -> Iterator[Server]:
    """A server on an address that others can reach (as it believes)."""
    with serving(alone.model_copy(update={"host": "0.0.0.0"})) as server:
        yield server


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def test_beyond_loopback_every_route_wants_a_key_of_its_scope(guarded):
    secrets = {scope: create_key(guarded.layout, scope, "test") for scope in Scope}
    assert all(secret not in guarded.layout.keys.read_text() for secret in secrets.values())
    for name, operation in operations(guarded.http.get("/openapi.json").json()):
        method, path = name.split()
        path = path.replace("{", "").replace("}", "")
        if path in OPEN:
            assert guarded.http.request(method, path).status_code in (200, 503)
            continue
        assert operation["security"] == [{"HTTPBearer": []}]
        answer, unknown = (guarded.http.request(method, path, headers=each) for each in ({}, bearer("rn_0_wrong")))
        assert answer.headers["www-authenticate"].startswith("Bearer")
        if path.startswith("/v2"):
            assert [answer.status_code, unknown.status_code] == [401, 401]
            assert set(answer.json()) == {"error"}
        else:
            problem(answer, 401, "key_missing")
            problem(unknown, 401, "key_unknown")
        assert guarded.http.request(method, path, headers=bearer(secrets[Scope.ADMIN])).status_code not in (401, 403)
    problem(guarded.http.get("/v1/jobs", headers=bearer(secrets[Scope.PREDICT])), 403, "scope_missing")
    problem(guarded.http.get("/metrics", headers=bearer(secrets[Scope.TRAIN])), 403, "scope_missing")
    answer = guarded.http.post("/v1/classify", content=IMAGE, headers=bearer(secrets[Scope.PREDICT]))
    assert answer.status_code == 200


def test_a_key_is_refused_before_the_body_is_read(guarded):
    with socket.create_connection(guarded.address, timeout=10) as connection:
        connection.sendall(b"PUT /v1/datasets HTTP/1.1\r\nHost: a\r\nContent-Length: 4000000\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 401")


def test_a_revoked_key_stops_working_without_a_restart(guarded):
    secret = create_key(guarded.layout, "predict")
    assert guarded.http.get("/v1/models", headers=bearer(secret)).status_code == 200
    assert revoke_key(guarded.layout, list_keys(guarded.layout)[0].id)
    problem(guarded.http.get("/v1/models", headers=bearer(secret)), 401, "key_unknown")
    assert not revoke_key(guarded.layout, "none")


def test_on_loopback_a_key_is_optional_but_a_wrong_one_is_refused(http):
    assert http.get("/v1/models").status_code == 200
    problem(http.get("/v1/models", headers=bearer("nonsense")), 401, "key_unknown")
    problem(http.get("/v1/models", headers={"Authorization": "Basic eDp5"}), 401, "key_unknown")


def test_on_loopback_a_foreign_page_gets_nothing_done(http):
    problem(http.post("/v1/classify", content=IMAGE, headers={"Host": "evil.example"}), 403, "foreign_host")
    problem(http.post("/v1/classify", content=IMAGE, headers={"Origin": "https://evil.example"}), 403, "foreign_host")
    local = {"Host": "localhost:8000", "Origin": "http://localhost:3000"}
    assert http.post("/v1/classify", content=IMAGE, headers=local).status_code == 200


def test_readiness_names_what_is_missing(server):
    answer = server.http.get("/readyz")
    assert answer.status_code == 200
    assert answer.json()["status"] == "degraded"  # no worker runs in these tests
    assert answer.json()["not_ready"] == ["worker"]
    server.engines.ready = False
    try:
        answer = server.http.get("/readyz")
        assert answer.status_code == 503
        assert answer.json()["not_ready"] == ["engine", "worker"]
        assert answer.json()["parts"]["engine"]["reason"] == "it is loading"
        assert server.http.get("/livez").status_code == 200
    finally:
        server.engines.ready = True


def test_metrics_have_bounded_labels(http):
    http.post("/v1/classify", content=IMAGE)
    http.post("/v1/models/toy@3:classify", content=IMAGE)
    http.get("/v1/jobs/job_secret_address")
    http.get("/a/secret/address")
    text = http.get("/metrics").text
    assert 'http_requests_total{method="POST",route="/v1/classify",status="200"}' in text
    assert 'route="/v1/models/{name}:classify"' in text
    assert 'http_requests_total{method="GET",route="/v1/jobs/{job_id}",status="404"}' in text
    assert 'http_requests_total{method="GET",route="unmatched",status="404"}' in text
    assert "secret" not in text


def test_classification_goes_on_while_redis_is_away_and_the_rest_says_so_in_time(tmp_path):
    layout = Layout(tmp_path / "data").create()
    settings = Settings(data=layout.root, redis_url=redis_account.url(layout))
    with own_redis(layout) as redis, serving(settings) as server:
        assert server.http.get("/v1/jobs").status_code == 200
        redis.send_signal(signal.SIGSTOP)  # worse than dead: it accepts and never answers
        for _ in range(3):
            started = time.monotonic()
            answer = server.http.get("/v1/jobs")
            problem(answer, 503, "ledger_unavailable")
            assert answer.headers["retry-after"]
            assert time.monotonic() - started < 1.0
        assert server.http.post("/v1/classify", content=IMAGE).status_code == 200
        problem(server.http.post("/v1/datasets", content=tiny_zip()), 503, "ledger_unavailable")
        assert list(layout.datasets.iterdir()) == []
        assert server.http.get("/v1/datasets").status_code == 200
        ready = server.http.get("/readyz")
        assert (ready.status_code, ready.json()["not_ready"]) == (200, ["ledger", "worker"])
        assert 'jobs{state="queued"}' not in server.http.get("/metrics").text
        redis.send_signal(signal.SIGCONT)
        wait_for(lambda: server.http.get("/v1/jobs").status_code == 200)
        redis.kill()
        redis.wait()
        problem(server.http.get("/v1/jobs"), 503, "ledger_unavailable")


def test_an_event_stream_goes_on_over_a_crash_of_redis(tmp_path):
    layout = Layout(tmp_path / "data").create()
    settings = Settings(data=layout.root, redis_url=redis_account.url(layout))
    with contextlib.ExitStack() as first:
        redis = first.enter_context(own_redis(layout))
        server = first.enter_context(serving(settings))
        job_id = server.http.post("/v1/datasets", content=tiny_zip()).json()["job"]["id"]
        url = f"{server.url}/v1/jobs/{job_id}/events"
        with httpx.stream("GET", url, headers={"Accept": "text/event-stream"}, timeout=20) as stream:
            lines = stream.iter_lines()
            while next(lines) != "event: queued":
                pass
            redis.kill()
            redis.wait()
            with own_redis(layout):
                wait_for(lambda: server.http.post(f"/v1/jobs/{job_id}/cancel").status_code != 503)
                rest = [line for line in lines if line.startswith("event: ")]
        assert rest == ["event: cancelled", "event: end"]


def test_models_recipes_and_architectures_are_lists(http):
    for path in ("/v1/models", "/v1/recipes", "/v1/architectures"):
        assert set(http.get(path).json()) == {"data", "has_more", "next"}
    assert "mnist" in [each["name"] for each in http.get("/v1/recipes").json()["data"]]
    assert "cifar/resnet20" in [each["name"] for each in http.get("/v1/architectures").json()["data"]]
    problem(http.get("/v1/models/nothing"), 404, "model_not_found")


def test_a_head_that_never_ends_is_cut_off(server: Server):
    """And answered, though megabytes of it are sent before anything is read."""
    answer = asked_raw(server, b"GET /livez HTTP/1.1\r\n" + (b"X-Pad: " + b"x" * 1000 + b"\r\n") * 2000)
    problem(answer, 400, "head_too_large")


def send_for(connection: socket.socket, *, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        connection.sendall(bytes(2**16))


def test_a_client_that_sends_on_after_its_refusal_is_not_heard_for_long(server: Server, monkeypatch):
    monkeypatch.setattr(protocol, "LINGER_SECONDS", 0.3)
    with socket.create_connection(server.address, timeout=30) as connection:
        connection.sendall(b"nonsense\r\n\r\n")
        assert to_the_end(connection).startswith(b"HTTP/1.1 400")
        with pytest.raises(ConnectionError):
            send_for(connection, seconds=8)


@pytest.mark.parametrize(
    "pieces", [[b""], [b"GET /livez HTTP/1.1\r\nA: b\r\n"], [b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n", b"G"]]
)
def test_a_head_that_does_not_come_is_not_waited_for(server: Server, monkeypatch: pytest.MonkeyPatch, pieces):
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.3)
    with socket.create_connection(server.address, timeout=4) as connection:
        connection.sendall(pieces[0])
        if len(pieces) > 1:
            assert connection.recv(4096).startswith(b"HTTP/1.1 200")
            connection.sendall(pieces[1])
        while connection.recv(4096):  # ends when the server closes; a timeout fails the test
            pass


def test_a_slow_body_is_no_slow_head(server: Server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.2)
    with socket.create_connection(server.address, timeout=10) as connection:
        connection.sendall(b"PUT /v1/classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nab")
        threading.Event().wait(0.5)
        connection.sendall(b"cd")
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("status", "code", "hint"),
    [
        (400, "bad_request", "/openapi.json"),
        (404, "not_found", "GET /"),
        (405, "method_not_allowed", "Allow"),
        (415, "unsupported_media_type", "/openapi.json"),
        (503, "service_unavailable", "/openapi.json"),
    ],
)
def test_what_the_framework_refuses_is_a_problem_with_a_hint(status, code, hint):
    app = FastAPI()
    handlers.install(app)

    @app.get("/thing")
    async def thing() -> None:
        raise HTTPException(status)

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as client:
            return await client.get("/thing")

    answer = asyncio.run(ask())
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert hint in answer.json()["hint"]


def to_the_end(connection: socket.socket) -> bytes:
    """All that comes until the server closes the connection; a timeout fails the test."""
    received = b""
    while piece := connection.recv(65536):
        received += piece
    return received


def asked_raw(server: Server, sent: bytes) -> httpx.Response:
    with socket.create_connection(server.address, timeout=30) as connection:
        connection.sendall(sent)
        head, _, body = to_the_end(connection).partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    version, status, _ = first.split(" ", 2)
    assert version == "HTTP/1.1"
    named = [tuple(line.split(": ", 1)) for line in lines]
    return httpx.Response(int(status), headers=named, content=body)


ENDLESS = b"GET /livez HTTP/1.1\r\nX-Request-ID: mine-1\r\nX-Pad: "


@pytest.mark.parametrize(
    ("sent", "code", "instance"),
    [
        (b"nonsense\r\n\r\n", "invalid_http", "/"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "invalid_http", "/"),  # the first bytes of TLS
        (b"GET /v1/models?limit=1 HTTP/1.1\r\nHost: a\r\nno header\r\n\r\n", "invalid_http", "/v1/models"),
        (
            b"POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nno length\r\n",
            "invalid_http",
            "/v1/classify",
        ),
        (ENDLESS + b"x" * (protocol.HEAD_BYTES + 1 - len(ENDLESS)), "head_too_large", "/livez"),
        (b"GET /v1/mod%C3%A9l%20%23 HTTP/1.1\r\nno header\r\n\r\n", "invalid_http", "/v1/mod%C3%A9l%20%23"),
    ],
)
def test_what_is_no_http_is_a_problem_too_and_ends_the_connection(server: Server, sent, code, instance):
    answer = asked_raw(server, sent)
    body = problem(answer, 400, code)
    assert body["instance"] == instance
    assert answer.headers["connection"] == "close"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert int(answer.headers["content-length"]) == len(answer.content)
    if b"mine-1" in sent:
        assert body["request_id"] == "mine-1"
    else:
        assert str(body["request_id"]).startswith("req_")


CHUNKED = b"POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"


def test_a_trailer_is_no_field_of_the_head(server: Server):
    chunks = b"2\r\n{}\r\n0\r\nX-Request-ID: trailing-1\r\nX-More: 1\r\n\r\n"
    answer = asked_raw(server, CHUNKED.replace(b"classify", b"jobs") + chunks)
    assert str(problem(answer, 422, "invalid_request")["request_id"]).startswith("req_")


@pytest.mark.parametrize(
    "endless", [b"0\r\n" + b"X-Pad: x\r\n" * 20_000, b"0\r\nX: " + b"x" * 200_000, b"1;" + b"x" * 200_000]
)
def test_trailers_and_extensions_of_chunks_that_never_end_are_refused(server: Server, endless: bytes):
    body = problem(asked_raw(server, CHUNKED + b"1\r\nx\r\n" + endless), 400, "invalid_http")
    assert "trailers" in str(body["detail"])


def test_a_body_in_many_small_chunks_is_none_of_that(server: Server):
    chunks = b"".join(b"1;%s\r\n%c\r\n" % (b"x" * 3000, byte) for byte in IMAGE) + b"0\r\n\r\n"
    assert len(chunks) > protocol.HEAD_BYTES
    assert asked_raw(server, CHUNKED + chunks).status_code == 200


def test_what_is_no_http_is_counted(server: Server):
    def counted() -> float:
        text = server.http.get("/metrics").text
        name = 'http_requests_total{method="other",route="unmatched",status="400"} '
        return sum(float(line.removeprefix(name)) for line in text.splitlines() if line.startswith(name))

    before = counted()
    assert asked_raw(server, b"nonsense\r\n\r\n").status_code == 400
    assert counted() == before + 1


@pytest.mark.parametrize("path", ["/v1/a%20b%23", "/v1/%C3%A9%25", "/v1/toy@3:nothing"])
def test_the_address_of_a_problem_is_a_uri_reference(http, path):
    assert problem(http.get(path), 404, "not_found")["instance"] == path


def test_below_v2_what_is_no_http_has_the_shape_of_its_protocol(server: Server):
    answer = asked_raw(server, b"GET /v2/models/toy HTTP/1.1\r\nHost: a\r\nno header\r\n\r\n")
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/json")
    assert set(answer.json()) == {"error"}
    assert answer.headers["x-request-id"].startswith("req_")


def test_a_problem_is_never_the_answer_to_the_request_before_it(server: Server):
    server.engines.entered.clear()
    head = f"POST /v1/classify?model=endless HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(IMAGE)}\r\n\r\n"
    with socket.create_connection(server.address, timeout=30) as connection:
        connection.sendall(head.encode() + IMAGE)
        assert server.engines.entered.wait(30)
        connection.sendall(b"nonsense\r\n\r\n")
        assert to_the_end(connection) == b""
    with socket.create_connection(server.address, timeout=30) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\nnonsense\r\n\r\n")
        assert to_the_end(connection) == b""


def test_a_problem_is_never_written_into_the_middle_of_another_answer(server: Server, dataset):
    job_id = train(server.http, dataset).json()["id"]
    with socket.create_connection(server.address, timeout=30) as connection:
        connection.sendall(f"GET /v1/jobs/{job_id}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        begun = b""
        while b"event: queued" not in begun:
            begun += connection.recv(65536)
        connection.sendall(b"nonsense\r\n\r\n")
        assert b"HTTP/1.1" not in to_the_end(connection)
    server.http.post(f"/v1/jobs/{job_id}/cancel").raise_for_status()
