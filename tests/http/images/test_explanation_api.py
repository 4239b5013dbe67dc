"""`outputs` of a classification, `:explain` and `:preprocess`: what comes in which shape, and what is refused."""

import base64
import json
import subprocess
from pathlib import Path

import pytest
from edge_kit import BAD_IMAGE, IMAGE, Server, problem
from typer.testing import CliRunner, Result

from resnetd.cli import app as command_line
from resnetd.client import Client
from resnetd.errors import Problem, Refused

B64 = base64.b64encode(IMAGE).decode()


def rows(results: list[dict[str, object]], name: str) -> list[object]:
    return [each[name] for each in results]


def test_outputs_come_by_query_form_and_json_for_the_images_that_are_good(http):
    files = [("f", ("a", IMAGE)), ("f", ("b", BAD_IMAGE)), ("f", ("c", b"")), ("f", ("d", IMAGE))]
    wanted = [[0.0, 0.1, 0.2], None, None, [0.3, 0.4, 0.5]]
    for answer in (
        http.post("/v1/classify", files=files, params={"outputs": "embedding,logits"}),
        http.post("/v1/classify", files=files, params=[("outputs", "logits"), ("outputs", "embedding")]),
        http.post("/v1/models/toy:classify", files=files, data={"outputs": "embedding, logits,embedding"}),
    ):
        results = answer.json()["results"]
        assert rows(results, "embedding") == rows(results, "logits") == wanted
        assert "probabilities" not in results[0]
    asked = {"images": [{"b64": B64}], "outputs": ["probabilities"]}
    (result,) = http.post("/v1/classify", json=asked).json()["results"]
    assert result["probabilities"] == [0.0, 0.1, 0.2]
    assert result["top_k"]
    assert set(http.post("/v1/classify", content=IMAGE).json()["results"][0]) == {"index", "top_k", "warnings", "error"}


def test_an_output_that_there_is_not_is_answered_with_the_nearest_one(http):
    answers = {
        "/query/outputs": http.post("/v1/classify", content=IMAGE, params={"outputs": "logits,embeddings"}),
        "#/outputs": http.post("/v1/classify", json={"images": [{"b64": B64}], "outputs": ["embeddings"]}),
    }
    for place, answer in answers.items():
        body = problem(answer, 422, "invalid_request")
        assert body["errors"] == [{"pointer": place, "detail": "'embeddings' is no output"}]
        assert "Did you mean `embedding`?" in str(body["hint"])
    form = http.post("/v1/classify", files={"f": ("a", IMAGE)}, data={"outputs": ""})
    assert problem(form, 422, "invalid_request")["errors"][0]["pointer"] == "#/outputs"


def test_explain_answers_with_a_heat_map_for_each_image(http):
    files = [("f", ("a.png", IMAGE)), ("f", ("b.png", BAD_IMAGE))]
    answer = http.post("/v1/models/toy:explain", files=files, params={"class_index": 1})
    body = answer.json()
    assert (body["model"], body["version"]) == ("toy", 3)
    assert set(body["timings_ms"]) == {"decode", "queue", "compute", "total"}
    good, bad = body["results"]
    assert good == {
        "index": 0,
        "filename": "a.png",
        "label": "dog",
        "class_index": 1,
        "probability": 0.7,
        "heatmap": [[0.0, 1.0], [0.5, 0.0]],
        "warnings": [],
        "error": None,
    }
    assert (bad["label"], bad["heatmap"], bad["error"]["code"]) == (None, None, "corrupt_image")
    assert "compute;dur=" in answer.headers["server-timing"]


def test_explain_draws_one_image_for_whom_a_picture_is_wanted(http):
    picture = http.post("/v1/models/toy@3:explain", content=IMAGE, headers={"Accept": "image/png"})
    assert picture.headers["content-type"] == "image/png"
    assert picture.content == b"\x89PNG overlay"
    told = {name: picture.headers[name] for name in ("x-model", "x-class-index", "x-class-label", "x-probability")}
    assert told == {"x-model": "toy@3", "x-class-index": "0", "x-class-label": "cat", "x-probability": "0.700000"}


def test_preprocess_shows_the_pixels_as_a_picture_or_as_json(http):
    for accept in ("*/*", "image/png", "image/*;q=0.9, application/json;q=0.1"):
        picture = http.post("/v1/models/toy:preprocess", content=b"grey", headers={"Accept": accept})
        assert picture.content == b"\x89PNG seen"
        assert picture.headers["x-pixels-sha256"] == "ab" * 32
        assert picture.headers["x-pixels-shape"] == "2, 2, 3"
        assert picture.headers["vary"] == "Accept"
    files = [("f", ("a", b"grey")), ("f", ("b", b"bad"))]
    headers = {"Accept": "application/json"}
    good, bad = http.post("/v1/models/toy:preprocess", files=files, headers=headers).json()["results"]
    assert base64.b64decode(good["png"]) == b"\x89PNG seen"
    assert (good["sha256"], good["shape"]) == ("ab" * 32, [2, 2, 3])
    assert good["warnings"][0]["code"] == "converted"
    assert (bad["png"], bad["sha256"], bad["error"]["code"]) == (None, None, "corrupt_image")


@pytest.mark.parametrize("verb", ["explain", "preprocess"])
@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_both_are_asked_of_the_default_model_or_of_one_that_is_named_as_for_a_classification(server, verb, method):
    def asked(path: str, **sent: object) -> str | None:
        answer = server.http.request(method, path, headers={"Accept": "image/png"}, **sent)
        assert (answer.status_code, answer.headers["x-model"]) == (200, "toy@3"), answer.text
        return server.engines.asked[-1][0]

    assert asked(f"/v1/{verb}", content=IMAGE) is None
    assert asked(f"/v1/{verb}?model=toy@2", content=IMAGE) == "toy@2"
    assert asked(f"/v1/{verb}", files={"f": ("a", IMAGE)}, data={"model": "toy@4"}) == "toy@4"
    assert asked(f"/v1/{verb}", json={"images": [{"b64": B64}], "model": "toy@5"}) == "toy@5"
    assert asked(f"/v1/models/toy@3:{verb}", content=IMAGE) == "toy@3"
    assert asked(f"/v1/models/toy:{verb}", json={"images": [{"b64": B64}], "model": "toy"}) == "toy"


def test_curl_t_explains(server: Server, tmp_path: Path):
    photo = tmp_path / "cat.jpg"
    photo.write_bytes(IMAGE * 3000)
    for path, label in (("/v1/explain", "cat"), ("/v1/models/toy:explain?class_index=1", "dog")):
        command = ["curl", "-sS", "--max-time", "20", "-T", photo, server.url + path]
        told = subprocess.run(command, capture_output=True, check=True)
        assert json.loads(told.stdout)["results"][0]["label"] == label


@pytest.mark.parametrize("verb", ["explain", "preprocess"])
def test_what_a_pictures_headers_say_the_openapi_document_names(http, verb):
    paths = http.get("/openapi.json").json()["paths"]
    headers = http.put(f"/v1/{verb}", content=IMAGE, headers={"Accept": "image/png"}).headers
    sent = {name for name in headers if name.startswith("x-")} - {"x-content-type-options"}
    for operation in (*paths[f"/v1/{verb}"].values(), *paths[f"/v1/models/{{name}}:{verb}"].values()):
        assert {name.lower() for name in operation["responses"]["200"]["headers"]} == sent


@pytest.mark.parametrize("verb", ["explain", "preprocess"])
def test_what_cannot_be_shown_is_refused(http, verb):
    path, png = f"/v1/models/toy:{verb}", {"Accept": "image/png"}
    problem(http.post(path, content=IMAGE, headers={"Accept": "text/html"}), 406, "not_acceptable")
    problem(http.post(path, files=[("f", ("a", IMAGE))] * 2, headers=png), 422, "one_image_only")
    problem(http.post(path, content=BAD_IMAGE, headers=png), 422, "corrupt_image")
    problem(http.post(path, files={"f": ("a", b"")}), 422, "empty_image")
    problem(http.post(path, content=b""), 422, "no_image")
    problem(http.post(f"/v1/models/unknown:{verb}", content=IMAGE), 404, "model_not_found")
    problem(http.post(f"/v1/models/late:{verb}", content=IMAGE), 504, "deadline_exceeded")
    for name, value in (("top_k", 1), ("model", "other"), ("outputs", ["logits"])):
        answer = http.post(path, json={"images": [{"b64": B64}], name: value})
        assert problem(answer, 422, "invalid_request")["errors"][0]["pointer"] == f"#/{name}"


def test_a_class_that_the_model_does_not_have_is_a_422(http):
    problem(http.post("/v1/models/toy:explain", content=IMAGE, params={"class_index": 7}), 422, "invalid_request")
    body = problem(
        http.post("/v1/models/toy:explain", content=IMAGE, params={"class_index": -1}), 422, "invalid_request"
    )
    assert body["errors"][0]["pointer"] == "/query/class_index"


@pytest.mark.parametrize(
    ("model", "status", "again"),
    [("unknown", 404, None), ("starting", 503, "2"), ("busy", 503, "1"), ("late", 504, None), ("broken", 500, None)],
)
def test_what_an_engine_refuses_has_the_shape_of_the_open_inference_protocol_there(http, model, status, again):
    answer = http.post(f"/v2/models/{model}/infer", content=IMAGE, headers={"Inference-Header-Content-Length": "0"})
    assert (answer.status_code, set(answer.json())) == (status, {"error"})
    assert answer.headers.get("retry-after") == again


def test_a_bug_is_an_error_of_the_open_inference_protocol_there_and_tells_nothing_of_the_inside(http):
    answer = http.post("/v2/models/bug/infer", content=IMAGE, headers={"Inference-Header-Content-Length": "0"})
    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/json")
    assert set(answer.json()) == {"error"}
    assert "secret" not in answer.text


def command(server: Server, *words: str) -> Result:
    return CliRunner().invoke(command_line, [*words, "--server", server.url])


def test_the_command_line_draws_an_explanation_and_prints_outputs(server: Server, tmp_path: Path):
    photo, picture = tmp_path / "cat.jpg", tmp_path / "drawn.png"
    photo.write_bytes(IMAGE)
    ended = command(server, "explain", str(photo), "--output", str(picture), "--class-index", "1")
    assert ended.exit_code == 0, ended.output
    assert ended.stdout == f"{picture}\n"
    assert "toy@3 saw dog (70.00%)" in ended.stderr
    assert picture.read_bytes() == b"\x89PNG overlay"
    found = json.loads(command(server, "explain", str(photo), "--model", "toy@3", "--json").stdout)
    assert (found["model"], found["label"], found["heatmap"]) == ("toy", "cat", [[0.0, 1.0], [0.5, 0.0]])
    (result,) = json.loads(command(server, "classify", str(photo), "--outputs", "logits").stdout)["results"]
    assert result["logits"] == [0.0, 0.1, 0.2]
    with Client(server.url) as client:
        seen = client.preprocess(photo, model="toy")
        assert base64.b64decode(seen["png"]) == b"\x89PNG seen"
        with pytest.raises(Problem, match="no output"):
            client.classify([photo], outputs=["logit"])
    assert isinstance(command(server, "explain", str(photo), "--output", "/nowhere/x.png").exception, Refused)
