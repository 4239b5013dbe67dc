"""Bodies in gzip or deflate: read as what is in them, bounded by that, and inflated no further than it goes."""

import gzip
import os
import socket
import zlib
from collections.abc import Callable, Iterator

import httpx
import pytest
from edge_kit import IMAGE, Server, serving
from waiting import wait_for

from app.encoded_bodies import _STEP, CODINGS, Inflater
from app.problems import BadRequestError
from store.settings import Settings

COMPRESS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}
ONE_IMAGE = {"Inference-Header-Content-Length": "0"}


def inflated(coding: str, body: bytes, *, pieces: int) -> list[bytes]:
    """The steps of a body that comes in pieces of so many bytes."""
    inflater = Inflater(coding)
    steps = [step for at in range(0, len(body), pieces) for step in inflater.steps(body[at : at + pieces])]
    inflater.end()
    return steps


def infer(http: httpx.Client, body: bytes, coding: str, **more: str) -> httpx.Response:
    headers = {"Content-Encoding": coding, **ONE_IMAGE, **more}
    answer = http.post("/v2/models/toy/infer", content=body, headers=headers)
    assert answer.status_code == 200 or set(answer.json()) == {"error"}, answer.text
    return answer


def test_every_coding_has_its_test() -> None:
    assert set(COMPRESS) == set(CODINGS)


@pytest.mark.parametrize("coding", COMPRESS)
@pytest.mark.parametrize("size", [0, 1, _STEP - 1, _STEP, _STEP + 1, 3 * _STEP])
@pytest.mark.parametrize("make", [bytes, os.urandom])
def test_what_was_compressed_comes_back_in_bounded_steps(coding: str, size: int, make: Callable[[int], bytes]) -> None:
    content = make(size)
    for pieces in (65_536, 1021):
        steps = inflated(coding, COMPRESS[coding](content), pieces=pieces)
        assert b"".join(steps) == content
        assert max(map(len, steps), default=0) <= _STEP


@pytest.mark.parametrize("coding", COMPRESS)
def test_nothing_is_inflated_before_it_is_asked_for(coding: str) -> None:
    bomb = COMPRESS[coding](bytes(100_000_000))
    steps = Inflater(coding).steps(bomb)
    assert [len(next(steps)) for _ in range(3)] == [_STEP] * 3


@pytest.mark.parametrize("coding", COMPRESS)
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda _: b"{}", "is none"),
        (lambda body: body[:-1], "ends in the middle"),
        (lambda _: b"", "ends in the middle"),
        (lambda body: body + b"x", "goes on behind its end"),
        (lambda body: body * 2, "goes on behind its end"),
        (lambda body: body[:-4] + b"\0\0\0\0", "is none"),
    ],
)
def test_what_is_not_one_whole_stream_is_refused(coding: str, spoil: Callable[[bytes], bytes], said: str) -> None:
    body = spoil(COMPRESS[coding](b"a picture of a cat"))
    for pieces in (65_536, 1):
        with pytest.raises(BadRequestError, match=said):
            inflated(coding, body, pieces=pieces)


@pytest.mark.parametrize("coding", COMPRESS)
def test_a_compressed_request_is_read_as_what_is_in_it(server: Server, coding: str) -> None:
    body = COMPRESS[coding](IMAGE)
    assert infer(server.http, body, coding.upper()).status_code == 200
    assert infer(server.http, IMAGE, "identity").status_code == 200
    document = b'{"inputs":[{"name":"image","shape":[1],"datatype":"BYTES","parameters":{"binary_data_size":%d}}]}'
    element = len(IMAGE).to_bytes(4, "little") + IMAGE
    head = document % len(element)
    answer = infer(
        server.http, COMPRESS[coding](head + element), coding, **{"Inference-Header-Content-Length": str(len(head))}
    )
    assert answer.status_code == 200
    assert answer.json()["model_name"] == "toy"


@pytest.mark.parametrize(("coding", "other"), [("gzip", "deflate"), ("deflate", "gzip")])
def test_what_is_not_in_the_coding_that_it_names_is_a_400(server: Server, coding: str, other: str) -> None:
    for body in (IMAGE, COMPRESS[other](IMAGE), COMPRESS[coding](IMAGE)[:-1], b""):
        assert infer(server.http, body, coding).status_code == 400


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip", "x" * 200])
def test_another_coding_is_a_415_that_names_those_that_are_read(server: Server, coding: str) -> None:
    answer = infer(server.http, IMAGE, coding)
    assert (answer.status_code, answer.headers["accept-encoding"]) == (415, "gzip, deflate")
    assert "gzip or deflate" in answer.json()["error"]


@pytest.mark.parametrize("coding", COMPRESS)
def test_a_body_that_grows_beyond_the_limit_is_refused_though_it_came_small(server: Server, coding: str) -> None:
    limit = server.state.settings.max_request_bytes
    bomb = COMPRESS[coding](bytes(200_000_000))
    assert len(bomb) < limit
    answer = infer(server.http, bomb, coding)
    assert answer.status_code == 413
    assert f"larger than {limit:,} bytes" in answer.json()["error"]
    just = COMPRESS[coding](bytes(limit))
    assert "An image is larger" in infer(server.http, just, coding).json()["error"]  # all of it was read


@pytest.fixture
def narrow(alone: Settings) -> Iterator[Server]:
    """A server that holds 300,000 bytes of requests."""
    with serving(alone.model_copy(update={"max_held_bytes": 300_000})) as server:
        yield server


def test_what_is_inflated_counts_as_held_and_is_refused_where_it_has_no_place(narrow: Server) -> None:
    with socket.create_connection(narrow.address, timeout=10) as connection:
        head = "POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: 190000\r\n\r\n"
        connection.sendall(head.encode() + bytes(150_000))
        wait_for(lambda: narrow.state.admission.held_bytes == 150_000)
        body = gzip.compress(bytes(180_000))
        assert len(body) < 1000
        assert infer(narrow.http, body, "gzip").status_code == 503
        wait_for(lambda: narrow.state.admission.held_bytes == 150_000)
    wait_for(lambda: narrow.state.admission.held_bytes == 0)
    assert infer(narrow.http, gzip.compress(IMAGE), "gzip").status_code == 200
