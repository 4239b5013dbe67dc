"""Other ways to compute a network: they give its outputs, and an engine changes over to them while it serves."""

import asyncio
import hashlib
import json
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from serving_toys import engine_process, first_words, make_artifact, picture
from torch import nn

from app.engine.runtimes import openvino_cpu
from app.engine.runtimes.base import Numbers
from app.engine.runtimes.network import Network, fold
from app.engine.runtimes.torch_eager import folded
from app.engine.selection import Selection
from app.inference.connection import Connection
from models import probes
from models.manifest import Manifest, NetworkSpec, Preprocessing
from models.networks.registry import build, find
from models.runtime import Normalise, Runtime, load, probabilities
from store.settings import Settings


def reference(name: str) -> Runtime:
    """A network with the normalisation statistics of a trained one, not those of a fresh one, which change nothing."""
    channels, side = find(name).input
    torch.manual_seed(0)
    network = build(NetworkSpec(name=name, num_classes=5, in_channels=channels))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    side = min(side, 64)
    to = Preprocessing(
        channels=channels, height=side, width=side, resize=side, mean=(0.4,) * channels, std=(0.3,) * channels
    )
    manifest = Manifest.model_construct(preprocessing=to, calibration=None)
    device = torch.device("cpu")
    network = network.eval().requires_grad_(requires_grad=False)
    return Runtime(manifest=manifest, network=network, normalise=Normalise(to, device), device=device)


def images(of: Runtime, count: int) -> np.ndarray:
    to = of.manifest.preprocessing
    return np.random.default_rng(0).integers(0, 256, (count, to.height, to.width, to.channels), dtype=np.uint8)


@pytest.mark.parametrize("name", ["cifar/resnet8", "d2l/resnet18", "mnist/gated", "torchvision/resnet18"])
def test_folding_leaves_no_normalisation_and_the_same_outputs(name):
    plain = reference(name)
    expected = plain.outputs(images(plain, 3))
    assert not [each for each in fold(plain.network).modules() if isinstance(each, nn.BatchNorm2d)]
    for numbers, near in ((Numbers.FP32, 1e-4), (Numbers.BF16, 5e-2)):
        loaded = folded(plain, numbers=numbers, cores=2)
        assert loaded.narrow is not None
        for compute in (loaded.wide, loaded.narrow):
            ours = compute(images(plain, 3))
            scale = np.abs(expected.logits).max()
            assert ours.logits.dtype == ours.embedding.dtype == np.float32
            assert np.abs(ours.logits - expected.logits).max() <= near * scale
            assert np.abs(ours.embedding - expected.embedding).max() <= near * np.abs(expected.embedding).max()


def test_folding_leaves_alone_what_is_used_twice_or_cannot_be_traced():
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.bn = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
            self.bn.running_mean += 0.5

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen = self.conv(x)
            return self.bn(seen) + seen

    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.bn = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
            self.bn.running_mean += 0.5

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.bn(self.conv(x)) if x.sum() > 0 else x

    x = torch.rand(2, 3, 4, 4)
    for network in (Shared().eval(), Branching().eval()):
        torch.testing.assert_close(fold(network)(x), network(x))


def test_folding_disturbs_no_network_that_another_thread_computes():
    """torch traces one network by replacing what every module of the process is called by."""
    plain = reference("cifar/resnet8")
    batch, stop = images(plain, 1), threading.Event()

    def serve() -> int:
        served = 0
        while not stop.is_set():
            plain.outputs(batch)
            served += 1
        return served

    with ThreadPoolExecutor(1) as other:
        serving = other.submit(serve)
        try:
            copies = [fold(plain.network) for _ in range(20)]
        finally:
            stop.set()
        assert serving.result() > 0
    assert not [each for one in copies for each in one.modules() if isinstance(each, nn.BatchNorm2d)]


def test_a_network_starts_from_bytes():
    plain = reference("cifar/resnet8")
    batch = torch.from_numpy(images(plain, 2))
    logits, embedding = Network(plain, folded=False)(batch)
    expected = plain.outputs(batch.numpy())
    assert np.abs(logits.numpy() - expected.logits).max() < 1e-4
    assert embedding.shape == (2, 64)


FIRST_INFERENCES = """
import sys, threading
sys.setswitchinterval(1e-6)
from pathlib import Path
import numpy as np
from app.engine.runtimes import openvino_cpu
from app.engine.runtimes.base import Numbers

loaded = openvino_cpu.load(Path(sys.argv[1]), numbers=Numbers.FP32, cores=2)
ready, image = threading.Barrier(8), np.zeros((1, *map(int, sys.argv[2:])), np.uint8)
threads = [threading.Thread(target=lambda: (ready.wait(), loaded.narrow(image))) for _ in range(8)]
for each in threads:
    each.start()
for each in threads:
    each.join()
print("all answered")
"""


def test_openvinos_first_inferences_may_be_of_several_threads_at_once(tmp_path):
    """In processes of their own: at the first inference of a process threads could wait for each other for ever.

    Without the mend seven processes of ten hung.
    """
    artifact = make_artifact(tmp_path / "model", job="job_a")
    openvino_cpu.floating(load(artifact), tmp_path)
    shape = load(artifact).manifest.preprocessing
    argument = [str(tmp_path), *map(str, (shape.height, shape.width, shape.channels))]
    for _ in range(4):
        command = [sys.executable, "-c", FIRST_INFERENCES, *argument]
        ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert ended.stdout == "all answered\n", ended.stderr


def test_openvino_and_nncf_never_load_what_would_call_home():
    code = (
        "import json, sys, app.engine.runtimes.openvino_library as library; library.openvino_library(); "
        "from openvino.tools import ovc; ovc.convert_model; "
        "print(json.dumps([name for name in sys.modules if name.startswith('openvino_telemetry.')]))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert json.loads(ended.stdout) == []


def test_a_cpu_that_is_named_by_its_number_is_fed_as_any_other(artifacts, tmp_path):
    settings = Settings(data=tmp_path)
    fed = [
        Selection(artifacts[0], model="toy", version=1, device=device, settings=settings).reference_serves().computing
        for device in ("cpu", "cpu:0")
    ]
    assert [(each.makes, each.max_batch) for each in fed] == [(True, 8), (True, 8)]


def with_probes(folder: Path) -> Path:
    """Give a toy model labelled images, as the trainer does: its own answers are the labels."""
    runtime = load(folder, "cpu")
    pixels = np.random.default_rng(5).integers(0, 256, (240, 32, 32, 3), dtype=np.uint8)
    labels = runtime.logits(pixels).argmax(axis=1)
    sha256 = probes.write(folder, calibration=pixels[:32], heldout=pixels, labels=labels, logits=runtime.logits)
    runtime.manifest.model_copy(update={"calibration_sha256": sha256}).write(folder)
    return folder


async def top(socket: Path, seed: int) -> dict[str, float]:
    connection = await Connection.open(str(socket))
    image = picture(seed)
    answer = await connection.request("classify", {"top_k": 3, "sizes": [len(image)], "timeout": 60}, [image])
    await connection.close()
    return {each["label"]: each["probability"] for each in answer["results"][0]["top_k"]}


def likeliest(answer: dict[str, float]) -> str:
    return max(answer, key=lambda label: answer[label])


def test_an_engine_serves_at_once_changes_over_to_a_faster_runtime_and_knows_it_at_the_next_start(tmp_path):
    folder = with_probes(make_artifact(tmp_path / "model", job="job_a", seed=3))
    socket, data = tmp_path / "engine.sock", tmp_path / "data"
    settings = {"RESNETD_DATA": str(data), "RESNETD_RUNTIME": "openvino", "RESNETD_PRECISION": "fastest"}
    runtime = load(folder, "cpu")
    pixels = np.random.default_rng(1).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    expected = dict(
        zip(runtime.manifest.classes, probabilities(runtime.logits(pixels), runtime.manifest)[0], strict=True)
    )

    with engine_process(folder, socket, **settings) as process:
        first = first_words(process)
        assert (first["runtime"]["name"], first["runtime"]["images_per_second"]) == ("eager", None)
        assert asyncio.run(top(socket, 1)) == pytest.approx(expected, abs=1e-5)
        second = first_words(process)["runtime"]
        assert second["name"] == "openvino"
        assert second["images_per_second"]["alone"] > 0
        assert second["max_batch"] in (1, 4, 8, 16, 32)
        tried = {(each["name"], each["precision"]): each["refused"] for each in second["candidates"]}
        rates = {each["precision"]: each["images_per_second"] for each in second["candidates"][1:]}
        assert set(tried) == {("eager", "fp32"), *(("openvino", numbers) for numbers in ("fp32", "bf16", "int8"))}
        assert tried["openvino", "fp32"] is None
        assert (
            tried["openvino", "int8"] is None
            or "needed" in tried["openvino", "int8"]
            or "accuracy" in tried["openvino", "int8"]
        )
        answer = asyncio.run(top(socket, 1))
        assert likeliest(answer) == likeliest(expected)
        if second["precision"] != "int8":
            assert answer == pytest.approx(expected, abs=2e-2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0

    with engine_process(folder, socket, **settings) as process:
        again = first_words(process)["runtime"]
        assert again == second
        answer = asyncio.run(top(socket, 1))
        assert sum(answer.values()) == pytest.approx(1)
        assert likeliest(answer) == likeliest(expected)

    other = load(make_artifact(tmp_path / "other", job="job_b", seed=4), "cpu")
    with engine_process(tmp_path / "other", socket, version=2, **settings) as process:
        said = first_words(process)["runtime"]
        assert (said["name"], said["like"], said["precision"]) == ("openvino", "toy@1", "fp32")
        assert said["images_per_second"] == rates["fp32"]
        expected_of_other = probabilities(other.logits(pixels), other.manifest)[0]
        answer = asyncio.run(top(socket, 1))
        assert [answer[name] for name in other.manifest.classes] == pytest.approx(list(expected_of_other), abs=1e-3)
        now = first_words(process)["runtime"]  # measured with its own images, while it served from the same files
        assert (now["name"], now["like"], len(now["candidates"])) == ("openvino", None, 4)
        assert sum(asyncio.run(top(socket, 1)).values()) == pytest.approx(1)

    for file in (data / "runtimes").glob("toy-2-*.json"):
        file.unlink()
    for file in (data / "runtimes").rglob("*.bin"):
        file.write_bytes(hashlib.sha256(b"damage").digest())
    with engine_process(folder, socket, **settings) as process:
        assert first_words(process)["runtime"]["name"] == "eager"
        assert asyncio.run(top(socket, 1)) == pytest.approx(expected, abs=1e-5)
        assert not list((data / "runtimes").glob("*.json"))  # it will be measured again


def test_the_routing_table_says_what_an_engine_computes_with(fleet):
    shown = fleet().ready("toy", 1).runtime
    assert (shown["name"], shown["precision"], shown["streams"]) == ("eager", "fp32", 1)
    assert shown["candidates"] == []
