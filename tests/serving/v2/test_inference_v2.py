"""The Open Inference Protocol, spoken by Triton's own client with a real engine."""

import base64
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
import numpy.typing as npt
import pytest
from edge_process import edge_over
from PIL import Image
from serving_toys import CLASSES, FleetProcess, picture
from tritonclient import http as triton
from tritonclient.utils import InferenceServerException

from app.services import statistics_v2
from models.runtime import Outputs, Runtime, load, probabilities
from store import redis_account
from store.layout import Layout

FILES = [picture(seed) for seed in range(3)]
PIXELS = np.stack([np.asarray(Image.open(BytesIO(file))) for file in FILES])
EXACT = {"atol": 1e-4, "rtol": 1e-4}  # float32, added up in another order
SERVED = {"atol": 2e-2, "rtol": 2e-2}  # by whatever runtime serves


@dataclass(frozen=True)
class Stack:
    url: str
    client: triton.InferenceServerClient
    http: httpx.Client
    runtime: Runtime
    fleet: FleetProcess


@pytest.fixture(scope="module")
def stack(artifacts: list[Path], redis_server: Layout) -> Iterator[Stack]:
    """The model `toy`, version 1, served; `other`, known and not loaded."""
    with tempfile.TemporaryDirectory(prefix="resnetd-test-") as data:
        layout = Layout(Path(data)).create()
        FleetProcess.publish_default(layout, artifacts[0])
        fleet = FleetProcess(layout)
        try:
            fleet.catalog.publish("other", artifacts[1], "job_1")
            with edge_over(fleet, redis_account.url(redis_server)) as (url, _):
                fleet.ready("toy", 1)
                with triton.InferenceServerClient(url) as client, httpx.Client(base_url=f"http://{url}") as http:
                    yield Stack(url, client, http, load(artifacts[0], "cpu"), fleet)
        finally:
            fleet.stop()


@pytest.fixture(scope="module")
def expected(stack: Stack) -> Outputs:
    return stack.runtime.outputs(PIXELS)


def files_input(*files: bytes) -> triton.InferInput:
    tensor = triton.InferInput("image", [len(files)], "BYTES")
    return tensor.set_data_from_numpy(np.array(files, dtype=np.object_))


def pixels_input(*, binary: bool = True) -> triton.InferInput:
    return triton.InferInput("pixels", list(PIXELS.shape), "UINT8").set_data_from_numpy(PIXELS, binary_data=binary)


def normalised(runtime: Runtime) -> npt.NDArray[np.float32]:
    to = runtime.manifest.preprocessing
    scaled = (PIXELS.astype(np.float64) / 255 - np.array(to.mean)) / np.array(to.std)
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2), dtype=np.float32)


def test_a_triton_client_finds_server_and_model_ready_and_described(stack: Stack) -> None:
    client = stack.client
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("toy")
    assert client.is_model_ready("toy", "1")
    for path in ("/v2/models/toy/ready", "/v2/models/toy@1/ready", "/v2/models/toy/versions/1/ready"):
        assert stack.http.get(path).json() == {"name": "toy", "ready": True}
    assert not client.is_model_ready("nobody")
    about = client.get_server_metadata()
    assert about["name"] == "resnetd"
    assert set(about["extensions"]) == {
        "binary_tensor_data",
        "classification",
        "model_configuration",
        "model_repository",
        "statistics",
    }
    model = client.get_model_metadata("toy")
    assert (model["name"], model["versions"]) == ("toy", ["1"])
    assert {(each["name"], each["datatype"], tuple(each["shape"])) for each in model["inputs"]} == {
        ("image", "BYTES", (-1, 1)),
        ("pixels", "UINT8", (-1, 32, 32, 3)),
        ("normalised", "FP32", (-1, 3, 32, 32)),
    }
    assert {(each["name"], tuple(each["shape"])) for each in model["outputs"]} == {
        ("probabilities", (-1, 3)),
        ("logits", (-1, 3)),
        ("embedding", (-1, 64)),
    }
    assert client.get_model_metadata("toy", "1") == model


def test_a_triton_client_reads_a_configuration_that_agrees_with_the_metadata(stack: Stack) -> None:
    config, model = stack.client.get_model_config("toy"), stack.client.get_model_metadata("toy")
    assert (config["name"], config["platform"], config["backend"]) == ("toy", model["platform"], "resnetd")
    assert config["max_batch_size"] == stack.fleet.settings.max_images_per_request
    for ours, theirs in (("input", "inputs"), ("output", "outputs")):
        told = {each["name"]: (each["data_type"].removeprefix("TYPE_"), [-1, *each["dims"]]) for each in config[ours]}
        known = {each["name"]: (each["datatype"], each["shape"]) for each in model[theirs]}
        assert told == {name: (kind.replace("BYTES", "STRING"), shape) for name, (kind, shape) in known.items()}
    assert {each["name"]: each["format"] for each in config["input"]} == {
        "image": "FORMAT_NONE",
        "pixels": "FORMAT_NHWC",
        "normalised": "FORMAT_NCHW",
    }
    assert all(each["optional"] for each in config["input"])  # a request has one of them
    assert stack.client.get_model_config("toy", "1") == config


def test_a_triton_client_reads_what_was_counted(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics_v2, "_FRESH_SECONDS", 0.0)  # each look is a new one
    client = stack.client
    (before,) = client.get_inference_statistics("toy")["model_stats"]
    for _ in range(2):
        client.infer("toy", [files_input(*FILES)])
    batch = np.full((1, 3, 32, 32), np.nan, dtype=np.float32)
    tensor = triton.InferInput("normalised", list(batch.shape), "FP32").set_data_from_numpy(batch)
    with pytest.raises(InferenceServerException, match="not finite"):
        client.infer("toy", [tensor])
    (after,) = client.get_inference_statistics("toy", "1")["model_stats"]
    assert (after["name"], after["version"]) == ("toy", "1")
    assert after["inference_count"] - before["inference_count"] == 6
    assert after["execution_count"] > before["execution_count"]
    sizes = {each["batch_size"]: each["compute_infer"]["count"] for each in after["batch_stats"]}
    assert sum(sizes.values()) == after["execution_count"]
    assert max(sizes) <= 3 * len(FILES)
    assert abs(after["last_inference"] / 1000 - time.time()) < 60
    was, now = before["inference_stats"], after["inference_stats"]
    counted = {name: now[name]["count"] - was[name]["count"] for name in now}
    stages, never = ("queue", "compute_input", "compute_infer"), ("compute_output", "cache_hit", "cache_miss")
    assert counted == {"success": 2, "fail": 1, **dict.fromkeys(stages, 2), **dict.fromkeys(never, 0)}
    assert now["fail"]["ns"] > was["fail"]["ns"]
    assert now["compute_infer"]["ns"] > was["compute_infer"]["ns"]
    assert abs(now["success"]["ns"] - sum(now[name]["ns"] for name in stages)) <= len(stages)  # rounded
    known = {(each["name"], each["version"]): each for each in client.get_inference_statistics()["model_stats"]}
    assert known["toy", "1"]["inference_count"] == after["inference_count"]
    assert known["other", "1"]["inference_count"] == known["other", "1"]["last_inference"] == 0
    for which in (("nobody",), ("toy", "9")):
        with pytest.raises(InferenceServerException):
            client.get_inference_statistics(*which)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
@pytest.mark.parametrize("binary", [True, False])
def test_a_request_may_be_compressed_and_its_answer_is_read(
    stack: Stack, expected: Outputs, coding: str, binary: bool
) -> None:
    found = stack.client.infer(
        "toy",
        [pixels_input(binary=binary)],
        outputs=[triton.InferRequestedOutput("logits", binary_data=binary)],
        request_compression_algorithm=coding,
        response_compression_algorithm=coding,
    )
    np.testing.assert_allclose(found.as_numpy("logits"), expected.logits, **SERVED)


@pytest.mark.parametrize("binary", [True, False])
def test_pixels_come_and_outputs_go_as_binary_data_and_as_json(stack: Stack, expected: Outputs, binary: bool) -> None:
    outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("logits", "embedding")]
    found = stack.client.infer("toy", [pixels_input(binary=binary)], outputs=outputs, request_id="a-7")
    response = found.get_response()
    assert (response["model_name"], response["model_version"], response["id"]) == ("toy", "1", "a-7")
    assert [each["name"] for each in response["outputs"]] == ["logits", "embedding"]
    np.testing.assert_allclose(found.as_numpy("logits"), expected.logits, **SERVED)
    np.testing.assert_allclose(found.as_numpy("embedding"), expected.embedding, **SERVED)


@pytest.mark.parametrize("binary", [True, False])
def test_what_a_client_has_normalised_itself_goes_through_the_float32_network(
    stack: Stack, expected: Outputs, binary: bool
) -> None:
    batch = normalised(stack.runtime)
    tensor = triton.InferInput("normalised", list(batch.shape), "FP32").set_data_from_numpy(batch, binary_data=binary)
    found = stack.client.infer("toy", [tensor], model_version="1")  # no outputs named: all of them, binary
    np.testing.assert_allclose(found.as_numpy("logits"), expected.logits, **EXACT)
    np.testing.assert_allclose(found.as_numpy("embedding"), expected.embedding, **EXACT)
    rows = probabilities(expected.logits, stack.runtime.manifest)
    np.testing.assert_allclose(found.as_numpy("probabilities"), rows, **EXACT)


@pytest.mark.parametrize("shape", [[3], [3, 1]])
@pytest.mark.parametrize("binary", [True, False])
def test_image_files_come_in_the_shape_that_is_announced_and_in_one_dimension(
    stack: Stack, expected: Outputs, shape: list[int], binary: bool
) -> None:
    config, model = stack.client.get_model_config("toy"), stack.client.get_model_metadata("toy")
    (dims,) = (each["dims"] for each in config["input"] if each["name"] == "image")
    (announced,) = (each["shape"] for each in model["inputs"] if each["name"] == "image")
    assert (dims, announced) == ([1], [-1, 1])
    files = np.array(FILES if binary else [base64.b64encode(file) for file in FILES], dtype=np.object_)
    tensor = triton.InferInput("image", shape, "BYTES").set_data_from_numpy(files.reshape(shape), binary_data=binary)
    found = stack.client.infer("toy", [tensor], outputs=[triton.InferRequestedOutput("embedding")])
    np.testing.assert_allclose(found.as_numpy("embedding"), expected.embedding, **SERVED)
    (width,) = (each["dims"] for each in config["output"] if each["name"] == "embedding")
    assert found.as_numpy("embedding").shape == (3, *width)


def test_image_files_come_as_binary_elements_or_as_base64(stack: Stack, expected: Outputs) -> None:
    sent = [files_input(*FILES)]
    encoded = [base64.b64encode(file) for file in FILES]
    for binary in (True, False):
        tensor = triton.InferInput("image", [3, 1], "BYTES")
        tensor.set_data_from_numpy(np.array(encoded, dtype=np.object_)[:, None], binary_data=binary)
        if binary:
            tensor._parameters["content_type"] = "base64"
        sent.append(tensor)
    for tensor in sent:
        found = stack.client.infer("toy", [tensor], outputs=[triton.InferRequestedOutput("logits")])
        np.testing.assert_allclose(found.as_numpy("logits"), expected.logits, **SERVED)


@pytest.mark.parametrize("binary", [True, False])
def test_classification_gives_value_index_and_label_the_best_first(
    stack: Stack, expected: Outputs, binary: bool
) -> None:
    asked = [
        triton.InferRequestedOutput("probabilities", binary_data=binary, class_count=2),
        triton.InferRequestedOutput("logits", binary_data=binary, class_count=99),
    ]
    found = stack.client.infer("toy", [files_input(*FILES)], outputs=asked)
    for name, rows, count in (
        ("probabilities", probabilities(expected.logits, stack.runtime.manifest), 2),
        ("logits", expected.logits, 3),
    ):
        texts = found.as_numpy(name)
        assert texts.shape == (3, count)
        for row, said in zip(rows, texts, strict=True):
            parts = [(each.decode() if isinstance(each, bytes) else each).split(":") for each in said]
            order = np.argsort(-row)[:count]
            assert [(int(index), label) for _, index, label in parts] == [(i, CLASSES[i]) for i in order]
            np.testing.assert_allclose([float(value) for value, _, _ in parts], row[order], **SERVED)


def test_a_body_that_names_its_model_as_kserves_client_does_is_answered(stack: Stack) -> None:
    tensor = {"name": "image", "shape": [1], "datatype": "BYTES", "data": [base64.b64encode(FILES[0]).decode()]}
    body = {"id": "a", "model_name": "toy", "model_version": "1", "inputs": [tensor]}
    answer = stack.http.post("/v2/models/toy/infer", json=body)
    assert (answer.status_code, answer.json()["model_version"]) == (200, "1"), answer.text
    answer = stack.http.post("/v2/models/toy/infer", json={**body, "model_version": "9"})
    assert (answer.status_code, "no model 'toy@9'" in answer.json()["error"]) == (404, True)


def test_a_body_may_be_one_image_and_nothing_else(stack: Stack) -> None:
    answer = stack.http.post("/v2/models/toy/infer", content=FILES[0], headers={"Inference-Header-Content-Length": "0"})
    length = int(answer.headers["inference-header-content-length"])
    found = triton.InferResult.from_response_body(answer.content, header_length=length)
    assert found.as_numpy("probabilities").shape == (1, 3)


@pytest.mark.parametrize("tensor", ["image", "pixels", "normalised"])
def test_answers_tell_how_long_each_stage_took(stack: Stack, tensor: str) -> None:
    asked = {"image": files_input(*FILES), "pixels": pixels_input()}.get(tensor)
    if asked is None:
        batch = normalised(stack.runtime)
        asked = triton.InferInput("normalised", list(batch.shape), "FP32").set_data_from_numpy(batch)
    body, length = triton.InferenceServerClient.generate_request_body([asked])
    headers = {"Inference-Header-Content-Length": str(length)}
    answer = stack.http.post("/v2/models/toy/infer", content=body, headers=headers)
    stages = dict(part.split(";dur=") for part in answer.headers["server-timing"].split(", "))
    assert set(stages) == {"decode", "queue", "compute", "total"}
    assert 0 < float(stages["compute"]) <= float(stages["total"])


def test_the_repository_lists_loads_and_unloads_models(stack: Stack) -> None:
    client = stack.client
    states = {(each["name"], each["version"]): each["state"] for each in client.get_model_repository_index()}
    assert {key: state for key, state in states.items() if key[0] in ("toy", "other")} == {
        ("toy", "1"): "READY",
        ("other", "1"): "UNAVAILABLE",
    }
    assert not client.is_model_ready("other")
    client.load_model("other")
    assert client.is_model_ready("other")
    ready = stack.http.post("/v2/repository/index", json={"ready": True}).json()
    assert {each["name"] for each in ready} == {"toy", "other"}
    with pytest.raises(InferenceServerException, match="toy@1"):  # the server's default
        client.unload_model("toy")
    client.unload_model("other")
    assert not client.is_model_ready("other")
    with pytest.raises(InferenceServerException, match="not supported"):
        client.load_model("other", config="{}")


def asked_wrong(**changes: object) -> dict[str, object]:
    tensor = {"name": "pixels", "datatype": "UINT8", "shape": [1, 32, 32, 3], "data": [0] * 3072}
    return {"inputs": [{**tensor, **changes}]}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "inputs"),
        ({"inputs": []}, "inputs"),
        ({"inputz": [], "inputs": [{}]}, "inputz"),
        (asked_wrong(name="pixel"), "Did you mean 'pixels'"),
        (asked_wrong(datatype="FP32"), "pixels is UINT8, not FP32"),
        (asked_wrong(shape=[1, 3, 32, 32]), "uint8 (N, 32, 32, 3)"),
        (asked_wrong(data=[0] * 3071), "holds 3072 values, its data 3071"),
        (asked_wrong(data=[256] * 3072), "whole numbers from 0 to 255"),
        (asked_wrong(data=[0.5] * 3072), "whole numbers from 0 to 255"),
        (asked_wrong(data=["1"] * 3072), "not numbers"),
        (asked_wrong(data=["1" * 100_000, *[""] * 3071]), "not numbers"),  # 1.2 GB as an array
        ({**asked_wrong(), **{f"k{number}": 0 for number in range(2000)}}, "members"),
        (asked_wrong(data=None), "neither an array"),
        (asked_wrong(shape=[0, 32, 32, 3], data=[]), "(N, 32, 32, 3)"),
        (asked_wrong(shape=[1000, 32, 32, 3]), "images a request"),
        (asked_wrong(parameters={"shared_memory_region": "a"}), "not supported"),
        (asked_wrong(parameters={"binary_data_size": 5}, data=None), "does not fit the body"),
        ({**asked_wrong(), "outputs": [{"name": "logit"}]}, "Did you mean 'logits'"),
        ({**asked_wrong(), "outputs": [{"name": "embedding", "parameters": {"classification": 1}}]}, "no classes"),
        ({**asked_wrong(), "outputs": [{"name": "logits", "parameters": {"classification": -1}}]}, "classification"),
        ({**asked_wrong(), "outputs": [{"name": "logits", "parameters": {"binary_data": 1}}]}, "true or false"),
        ({**asked_wrong(), "parameters": {"timeout": "soon"}}, "microseconds"),
        ({"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": ["%"]}]}, "not base64"),
        ({"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [7]}]}, "no string"),
        ({"inputs": [{"name": "image", "datatype": "BYTES", "shape": [2], "data": [""]}]}, "holds 2 elements"),
        ({"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": ["AAAA"]}]}, "unsupported_format"),
        ({**asked_wrong(), "model_name": "other"}, "the address says toy"),
        ({"inputs": asked_wrong()["inputs"] * 2}, "exactly one"),  # type: ignore[operator]  # a list
    ],
)
def test_what_is_wrong_is_a_400_with_one_text(stack: Stack, body: dict[str, object], said: str) -> None:
    answer = stack.http.post("/v2/models/toy/infer", json=body)
    assert (answer.status_code, set(answer.json())) == (400, {"error"}), answer.text
    assert said in answer.json()["error"]


@pytest.mark.parametrize(
    ("body", "headers", "status", "said"),
    [
        (b"{", {}, 400, "not JSON"),
        (b"", {}, 400, "not JSON"),
        (b"{}", {"Inference-Header-Content-Length": "3"}, 400, "no length within"),
        (b"{}", {"Inference-Header-Content-Length": "-1"}, 400, "no length within"),
        (b"{}", {"Inference-Header-Content-Length": "0" * 5000}, 400, "no length within"),
        (b"\x05\0\0\0", {"Inference-Header-Content-Length": "0"}, 400, "unsupported_format"),
        (b"", {"Inference-Header-Content-Length": "0"}, 400, "empty_image"),
        (b"x" * 100_001, {"Inference-Header-Content-Length": "0"}, 413, "larger than 100,000 bytes"),
        (b"{}", {"Content-Encoding": "gzip"}, 400, "Content-Encoding gzip is none"),
        (b"{}", {"Content-Encoding": "br"}, 415, "gzip or deflate"),
    ],
)
def test_a_body_that_cannot_be_read_is_refused_in_the_same_shape(
    stack: Stack, body: bytes, headers: dict[str, str], status: int, said: str
) -> None:
    answer = stack.http.post("/v2/models/toy/infer", content=body, headers=headers)
    assert (answer.status_code, set(answer.json())) == (status, {"error"}), answer.text
    assert said in answer.json()["error"]


def test_a_length_within_binary_data_that_leads_out_of_them_is_refused(stack: Stack) -> None:
    tensor = files_input(FILES[0])
    tensor._raw_data = b"\xff\xff\xff\x7f" + tensor._raw_data[4:]
    with pytest.raises(InferenceServerException, match="leads out of its data"):
        stack.client.infer("toy", [tensor])


def test_values_that_are_not_finite_are_refused(stack: Stack) -> None:
    huge = {"name": "normalised", "datatype": "FP32", "shape": [1, 3, 32, 32], "data": [1e300] * 3072}
    answer = stack.http.post("/v2/models/toy/infer", json={"inputs": [huge]})
    assert (answer.status_code, "not finite" in answer.text) == (400, True)
    batch = normalised(stack.runtime)
    batch[0, 0, 0, 0] = np.nan
    tensor = triton.InferInput("normalised", list(batch.shape), "FP32").set_data_from_numpy(batch)
    with pytest.raises(InferenceServerException, match="not finite"):
        stack.client.infer("toy", [tensor])


def test_unknown_models_addresses_and_methods_are_errors_of_the_protocol(stack: Stack) -> None:
    for method, path, status in (
        ("GET", "/v2/models/nobody", 404),
        ("GET", "/v2/models/toy/versions/9", 404),
        ("GET", "/v2/models/toy/versions/9/ready", 404),
        ("GET", "/v2/models/nobody/config", 404),
        ("GET", "/v2/models/nobody/stats", 404),
        ("GET", "/v2/models/toy/versions/9/stats", 404),
        ("POST", "/v2/models/stats", 405),
        ("POST", "/v2/models/nobody/infer", 404),
        ("POST", "/v2/repository/models/nobody/load", 404),
        ("GET", "/v2/nothing", 404),
        ("GET", "/v2/models/toy/infer", 405),
        ("GET", "/v2?colour=red", 400),
    ):
        body = asked_wrong() if path.endswith("/infer") and method == "POST" else None
        answer = stack.http.request(method, path, json=body)
        assert (answer.status_code, set(answer.json())) == (status, {"error"}), path
        assert answer.headers["content-type"] == "application/json"
    with pytest.raises(InferenceServerException, match=r"models here: .*other, toy"):
        stack.client.get_model_metadata("nobody")
