"""POST and PUT /v1/classify: every way in, every refusal."""

import base64
import json
import socket
import subprocess

import httpx
import pytest
from edge_kit import BAD_IMAGE, CLASSES, IMAGE, Server, problem
from samples import photo, png

from models.images import ImageRejected, decode
from store.settings import Settings


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def classify(http: httpx.Client, images: list[dict[str, object]], **more: object) -> httpx.Response:
    return http.post("/v1/classify", json={"images": images, **more})


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize("path", ["/v1/classify", "/v1/models/toy:classify", "/v1/models/toy@3:classify"])
def test_a_raw_body_is_one_image_and_the_answer_has_exactly_the_promised_shape(http, method, path):
    answer = http.request(method, path, content=IMAGE)
    assert answer.status_code == 200
    body = answer.json()
    assert set(body) == {"model", "version", "results", "timings_ms"}
    assert (body["model"], body["version"]) == ("toy", 3)
    assert set(body["timings_ms"]) == {"decode", "queue", "compute", "total"}
    (result,) = body["results"]
    assert set(result) == {"index", "top_k", "warnings", "error"}
    assert result["error"] is None
    assert result["top_k"][0] == {"label": "cat", "class_index": 0, "probability": 0.7}
    assert "decode;dur=" in answer.headers["server-timing"]


@pytest.mark.parametrize("content_type", [None, "image/png", "application/octet-stream", "nonsense", "text/html"])
def test_any_content_type_of_a_raw_body_will_do(http, content_type):
    headers = {"Content-Type": content_type} if content_type else {}
    assert http.post("/v1/classify", content=IMAGE, headers=headers).status_code == 200


def test_curl_t_as_in_the_readme_works(server, tmp_path):
    photo = tmp_path / "cat.jpg"
    photo.write_bytes(IMAGE * 3000)  # beyond 1 KB curl may ask by Expect: 100-continue
    for extra in ([], ["-H", "Expect: 100-continue"], ["-X", "POST"]):
        told = subprocess.run(
            ["curl", "-sS", "--max-time", "20", *extra, "-T", photo, f"{server.url}/v1/classify"],
            capture_output=True,
            check=True,
        )
        assert json.loads(told.stdout)["results"][0]["top_k"][0]["label"] == "cat"


def test_the_model_in_the_address_is_the_one_that_is_asked(server):
    server.http.post("/v1/models/toy@production:classify", content=IMAGE)
    assert server.engines.asked[-1][0] == "toy@production"
    server.http.post("/v1/classify", content=IMAGE, params={"model": "toy@2"})
    assert server.engines.asked[-1][0] == "toy@2"
    server.http.post("/v1/classify", content=IMAGE)
    assert server.engines.asked[-1] == (None, 1, 5)


# Without a query the door answers, with one the route behind it.
@pytest.mark.parametrize("query", ["", "?top_k=2"])
def test_a_body_that_names_another_model_than_the_address_is_refused_and_not_ignored(server: Server, query):
    path, before = f"/v1/models/toy:classify{query}", len(server.engines.asked)
    for sent in (
        {"json": {"images": [{"b64": b64(IMAGE)}], "model": "other"}},
        {"files": {"f": ("a", IMAGE)}, "data": {"model": "other"}},
    ):
        body = problem(server.http.post(path, **sent), 422, "invalid_request")
        assert body["errors"] == [{"pointer": "#/model", "detail": "the address says toy"}]
        assert "`model`" in str(body["hint"])
    assert len(server.engines.asked) == before
    alike = {"images": [{"b64": b64(IMAGE)}], "model": "toy"}
    assert server.http.post(path, json=alike).status_code == 200


@pytest.mark.parametrize(
    ("name", "query", "differs", "alike", "said"),
    [
        ("model", "toy", "other", "toy", "toy"),
        ("top_k", "2", 3, 2, "2"),
        ("outputs", "embedding,logits", ["logits"], ["logits", "embedding"], "logits, embedding"),
    ],
)
def test_what_query_and_body_say_differently_is_refused_and_what_they_say_alike_is_not(
    *, http, name, query, differs, alike, said
):
    def ask(value: object) -> list[httpx.Response]:
        field = ",".join(value) if isinstance(value, list) else str(value)
        return [
            http.post("/v1/classify", params={name: query}, json={"images": [{"b64": b64(IMAGE)}], name: value}),
            http.post("/v1/classify", params={name: query}, files={"f": ("a", IMAGE)}, data={name: field}),
        ]

    for answer in ask(differs):
        errors = problem(answer, 422, "invalid_request")["errors"]
        assert errors == [{"pointer": f"#/{name}", "detail": f"the address says {said}"}]
    assert [answer.status_code for answer in ask(alike)] == [200, 200]


def test_every_file_part_of_a_form_counts_whatever_its_field_is_called(http):
    files = [("file", ("a.png", IMAGE)), ("photo", ("../../b.png", b"grey")), ("", ("c.png", IMAGE))]
    answer = http.post("/v1/classify", files=files, data={"top_k": "2"})
    results = answer.json()["results"]
    assert [(each["index"], each["filename"]) for each in results] == [(0, "a.png"), (1, "b.png"), (2, "c.png")]
    assert [len(each["top_k"]) for each in results] == [2, 2, 2]
    assert results[1]["warnings"] == [{"code": "converted", "message": "from grey"}]


def test_json_carries_images_in_base64_also_as_data_urls(http):
    images = [{"b64": b64(IMAGE), "filename": "x.png"}, {"b64": "data:image/png;base64," + b64(IMAGE)}]
    answer = classify(http, images, top_k=2, model="toy")
    assert [len(each["top_k"]) for each in answer.json()["results"]] == [2, 2]
    assert [each.get("filename") for each in answer.json()["results"]] == ["x.png", None]


def test_base64_may_be_broken_into_lines_and_the_limit_counts_the_image_alone(http, settings):
    lines = base64.encodebytes(IMAGE * 40).decode()
    assert lines.count("\n") > 10
    answer = classify(http, [{"b64": lines}, {"b64": lines.replace("\n", "\r\n\t ")}])
    assert [each["error"] for each in answer.json()["results"]] == [None, None]
    largest = b"x" * settings.max_image_bytes
    assert classify(http, [{"b64": base64.encodebytes(largest).decode()}]).status_code == 200
    problem(classify(http, [{"b64": "\u00e9" * 4}]), 422, "invalid_base64")


def test_json_without_a_content_type_as_curl_d_sends_it_is_understood(http):
    body = json.dumps({"images": [{"b64": b64(IMAGE)}]}).encode()
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    assert http.post("/v1/classify", content=body, headers=headers).status_code == 200


def test_each_image_of_several_has_its_own_result_or_its_own_error_in_its_place(http):
    answer = classify(http, [{"b64": "%%%"}, {"b64": b64(IMAGE)}, {"b64": b64(BAD_IMAGE)}, {"b64": ""}])
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert [each["index"] for each in results] == [0, 1, 2, 3]
    codes = [each["error"] and each["error"]["code"] for each in results]
    assert codes == ["invalid_base64", None, "corrupt_image", "empty_image"]


def test_all_bad_is_a_422_problem_that_points_at_each_image(http):
    body = problem(classify(http, [{"b64": b64(BAD_IMAGE)}, {"b64": "%"}]), 422, "no_usable_image")
    assert [each["pointer"] for each in body["errors"]] == ["#/images/0", "#/images/1"]
    problem(http.post("/v1/classify", content=BAD_IMAGE), 422, "corrupt_image")


def test_an_oversized_image_fails_alone(http, settings):
    big = b"x" * (settings.max_image_bytes + 1)
    answer = http.post("/v1/classify", files=[("a", ("big.png", big)), ("b", ("ok.png", IMAGE))])
    assert [each["error"] and each["error"]["code"] for each in answer.json()["results"]] == ["image_too_large", None]
    answer = classify(http, [{"b64": b64(big)}, {"b64": b64(IMAGE)}])
    assert [each["error"] and each["error"]["code"] for each in answer.json()["results"]] == ["image_too_large", None]
    setting = f"RESNETD_MAX_IMAGE_BYTES is {settings.max_image_bytes:,}"
    assert setting in answer.json()["results"][0]["error"]["hint"]
    for alone in (http.post("/v1/classify", content=big), classify(http, [{"b64": b64(big)}])):
        assert setting in str(problem(alone, 413, "image_too_large")["hint"])
    several = [("a", ("1.png", big)), ("b", ("2.png", big))]
    body = problem(http.post("/v1/classify", files=several), 422, "image_too_large")
    assert [each["pointer"] for each in body["errors"]] == ["#/images/0", "#/images/1"]


def test_an_image_of_too_many_pixels_is_refused_with_the_setting_that_bounds_them():
    with pytest.raises(ImageRejected) as rejected:
        decode(png(photo(size=(20, 20))), max_pixels=399)
    assert rejected.value.code == "image_too_large"
    assert "RESNETD_MAX_IMAGE_PIXELS is 399" in rejected.value.hint


def test_a_body_over_the_limit_is_refused_by_its_length_and_by_counting(http, settings):
    huge = b"x" * (settings.max_request_bytes + 1)
    problem(http.post("/v1/classify", content=huge), 413, "body_too_large")
    problem(http.post("/v1/classify", content=iter([huge])), 413, "body_too_large")
    problem(http.post("/v1/classify", files={"f": ("a", huge)}), 413, "body_too_large")


def test_a_declared_length_over_the_limit_is_refused_before_the_body_is_read(server):
    with socket.create_connection(server.address, timeout=10) as connection:
        head = "POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n"
        connection.sendall(head.encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize(
    ("top_k", "labels"),
    [("1", 1), ("3", 3), ("999", len(CLASSES)), ("999999999999999999999999", len(CLASSES))],
)
def test_top_k_beyond_the_classes_gives_all_of_them(http, top_k, labels):
    answer = http.post("/v1/classify", content=IMAGE, params={"top_k": top_k})
    assert len(answer.json()["results"][0]["top_k"]) == labels


@pytest.mark.parametrize("top_k", ["0", "-1", "abc", "1.5", ""])
def test_a_top_k_that_is_no_count_is_a_422_that_names_it_in_query_and_form(http, top_k):
    body = problem(http.post("/v1/classify", content=IMAGE, params={"top_k": top_k}), 422, "invalid_request")
    assert body["errors"][0]["pointer"] == "/query/top_k"
    form = http.post("/v1/classify", files={"f": ("a", IMAGE)}, data={"top_k": top_k})
    assert problem(form, 422, "invalid_request")["errors"][0]["pointer"] == "#/top_k"


def test_a_top_k_of_zero_in_json_is_a_422_that_names_it(http):
    body = problem(classify(http, [{"b64": b64(IMAGE)}], top_k=0), 422, "invalid_request")
    assert body["errors"][0]["pointer"] == "#/top_k"


def test_no_image_at_all_is_a_clear_422(http):
    problem(http.post("/v1/classify", content=b""), 422, "no_image")
    problem(http.post("/v1/classify", files={"top_k": (None, "3")}), 422, "no_image")
    problem(classify(http, []), 422, "invalid_request")
    assert "curl" in str(http.put("/v1/classify", content=b"").json()["hint"])


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b'{"images": NaN}', 400),
        (b"\xff\xfe", 400),
        (b"[" * 100_000, 400),
        (b'{"images":' + b'{"a":' * 100_000, 400),
        (b"[]", 422),
        (b"null", 422),
        (b'{"images": "x"}', 422),
        (b'{"images": [1]}', 422),
        (b'{"images": [{"b64": 1}]}', 422),
        (b'{"images": [{"url": "file:///etc/passwd"}]}', 422),
        (b'{"imgs": []}', 422),
    ],
)
def test_bad_json_is_a_problem_and_never_a_500(http, body, status):
    answer = http.post("/v1/classify", content=body, headers={"Content-Type": "application/json"})
    problem(answer, status, "invalid_json" if status == 400 else "invalid_request")


def test_an_unknown_field_is_answered_with_the_nearest_name(http):
    answer = http.post("/v1/classify", json={"images": [{"b64": b64(IMAGE)}], "topk": 2})
    assert "`top_k`" in str(problem(answer, 422, "invalid_request")["hint"])


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", b"--x\r\n\r\n"),
        ("multipart/form-data; boundary=", b"--x\r\n\r\n"),
        ("multipart/form-data; boundary=" + "b" * 300, b"--x\r\n\r\n"),
        ("multipart/form-data; boundary=x", b"no boundary here"),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\ncut',
        ),
        ("multipart/form-data; boundary=x", b"--x\r\n" + b"A: b\r\n" * 50 + b"\r\n\r\n--x--\r\n"),
        ("multipart/form-data; boundary=x", b"--x\r\nA: " + b"b" * 100_000 + b"\r\n\r\n\r\n--x--\r\n"),
        ("multipart/form-data; boundary=x", b""),
    ],
)
def test_a_broken_form_is_a_400_problem(http, content_type, body):
    answer = http.post("/v1/classify", content=body, headers={"Content-Type": content_type})
    problem(answer, 400, "invalid_multipart")


def test_too_many_images_are_refused_in_a_form_and_in_json(http, settings):
    many = settings.max_images_per_request + 1
    answer = http.post("/v1/classify", files=[("f", (f"{i}.png", IMAGE)) for i in range(many)])
    setting = f"RESNETD_MAX_IMAGES_PER_REQUEST is {settings.max_images_per_request}"
    assert setting in str(problem(answer, 422, "too_many_images")["hint"])
    problem(http.post("/v1/classify", files=[("f", ("a", IMAGE))] * (many + 5)), 422, "too_many_parts")
    problem(classify(http, [{"b64": b64(IMAGE)}] * many), 422, "too_many_images")


def test_a_text_field_that_is_neither_file_nor_known_is_refused(http):
    answer = http.post("/v1/classify", files={"f": ("a", IMAGE), "treshold": (None, "0.5")})
    problem(answer, 422, "unknown_field")


@pytest.mark.parametrize(
    ("model", "status", "code", "again"),
    [
        ("unknown", 404, "model_not_found", None),
        ("starting", 503, "model_loading", "2"),
        ("gone", 503, "engine_unavailable", "5"),
        ("busy", 503, "overloaded", "1"),
        ("late", 504, "deadline_exceeded", None),
        ("broken", 500, "engine_failed", None),
    ],
)
def test_what_an_engine_refuses_becomes_its_problem(http, model, status, code, again):
    answer = http.post("/v1/classify", content=IMAGE, params={"model": model})
    problem(answer, status, code)
    assert answer.headers.get("retry-after") == again


def test_a_model_that_is_not_there_is_a_404_of_the_address_and_a_wrong_field_of_a_body(http):
    image = {"b64": b64(IMAGE)}
    for body in (
        {"json": {"images": [image], "model": "unknown"}},
        {"files": {"f": ("a", IMAGE)}, "data": {"model": "unknown"}},
    ):
        for path in ("/v1/classify", "/v1/explain", "/v1/preprocess"):
            refused = problem(http.post(path, **body), 422, "model_not_found")
            assert [each["pointer"] for each in refused["errors"]] == ["#/model"]
            assert refused["hint"] == "models here: toy"
            for address in (f"{path}?model=unknown", path.replace("/v1/", "/v1/models/unknown:")):
                assert problem(http.post(address, **body), 404, "model_not_found")["errors"] == []


def test_a_bug_is_a_500_problem_that_tells_nothing_of_the_inside(http):
    answer = http.post("/v1/classify", content=IMAGE, params={"model": "bug"})
    problem(answer, 500, "internal_error")
    assert "secret" not in answer.text


def test_nan_never_leaves(http):
    answer = http.post("/v1/classify", content=b"nan")
    assert b"NaN" not in answer.content
    assert answer.json()["results"][0]["top_k"][2]["probability"] is None


def test_a_client_that_hangs_up_takes_its_work_with_it(server: Server, settings: Settings):
    server.engines.cancelled.clear()
    address = server.address
    with socket.create_connection(address, timeout=10) as connection:
        head = f"POST /v1/classify?model=endless HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(IMAGE)}\r\n\r\n"
        connection.sendall(head.encode() + IMAGE)
        assert server.engines.entered.wait(10)
    assert server.engines.cancelled.wait(10)


def test_many_small_items_are_refused_before_anything_is_built_of_them(http):
    body = b'{"images":[' + b",".join([b"1"] * 400_000) + b"]}"
    answer = http.post("/v1/classify", content=body, headers={"Content-Type": "application/json"})
    problem(answer, 422, "too_many_images")
    problem(classify(http, [{"b64": "AA=="}] * 300), 422, "too_many_images")


def test_labels_that_an_answer_has_no_room_for_are_refused_with_how_many_it_has_room_for(http):
    answer = http.post("/v1/classify", content=IMAGE, params={"model": "wide", "top_k": 900})
    body = problem(answer, 422, "too_many_labels")
    assert "900 labels for each of 2 images" in str(body["detail"])
    assert "top_k of 4 at most" in str(body["hint"])
