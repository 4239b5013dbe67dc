"""What computes on NVIDIA. Without a GPU all of this is skipped, and nothing else tests it."""

import asyncio
import itertools
import shutil
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from serving_toys import assert_near, engine_process, first_words, make_artifact, picture

from app.engine.runtimes import compiled, cuda_graphs, gates
from app.engine.runtimes.base import Loaded, Numbers, Unavailable
from app.engine.runtimes.torch_eager import folded
from app.inference.connection import Connection
from models import golden
from models.runtime import Runtime, load

on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no NVIDIA GPU here")
COMPILER = shutil.which("g++") or shutil.which("clang++")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_artifact(tmp_path_factory.mktemp("nvidia") / "model", job="job_a", seed=3)


@pytest.fixture(scope="module")
def reference(folder: Path) -> Iterator[Runtime]:
    yield load(folder, "cuda")
    torch.cuda.empty_cache()


def pixels(count: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(count).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def proven(loaded: Loaded, reference: Runtime, folder: Path) -> None:
    """It may serve, and what it gives for a batch is neither another size's nor the one's before."""
    proof = golden.read(folder, reference.manifest)
    verdict = gates.judge(loaded, numbers=Numbers.BF16, manifest=reference.manifest, golden=proof, probes=None)
    assert verdict.refused is None
    for count in (1, 256, 2, 3, 64, 33, 255, 257, 600, 1):
        assert_near(loaded.wide(pixels(count)), reference.outputs(pixels(count)), reference.manifest)


@on_a_gpu
def test_recorded_kernels_give_every_batch_its_own_outputs(reference: Runtime, folder: Path) -> None:
    proven(cuda_graphs.load(reference), reference, folder)


@on_a_gpu
def test_kernels_are_recorded_while_another_thread_computes_and_neither_fails(reference: Runtime, folder: Path) -> None:
    stop = threading.Event()

    def serve() -> None:
        for count in itertools.cycle((1, 8, 3, 64)):  # other sizes take other memory
            reference.outputs(pixels(count))
            if stop.is_set():
                return

    with ThreadPoolExecutor(1) as other:
        serving = other.submit(serve)
        try:
            loaded = [cuda_graphs.load(reference) for _ in range(3)]
        finally:
            stop.set()
        serving.result()
    proven(loaded[-1], reference, folder)


@on_a_gpu
def test_the_folded_network_gives_every_batch_its_own_outputs(reference: Runtime, folder: Path) -> None:
    proven(folded(reference, numbers=Numbers.BF16, cores=8), reference, folder)


@on_a_gpu
@pytest.mark.timeout(900)
@pytest.mark.skipif(COMPILER is None, reason="there is no C++ compiler")
@pytest.mark.filterwarnings("default")  # the compiler warns of much that is its own
def test_the_compiled_network_gives_every_batch_its_own_outputs(
    reference: Runtime, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    compiled.build(reference, tmp_path)
    proven(compiled.load(tmp_path, device=reference.device, cores=8), reference, folder)


@on_a_gpu
@pytest.mark.timeout(900)
def test_an_engine_on_a_gpu_changes_over_to_recorded_kernels_while_it_serves(folder: Path, tmp_path: Path) -> None:
    socket, image = tmp_path / "engine.sock", picture(1)
    settings = {"RESNETD_DATA": str(tmp_path / "data"), "RESNETD_RUNTIME": "cuda_graphs"}

    async def top() -> tuple[str, float]:
        connection = await Connection.open(str(socket))
        fields = {"top_k": 1, "sizes": [len(image)] * 9, "timeout": 60}
        answer = await connection.request("classify", fields, [image] * 9)
        await connection.close()
        (found,) = {(best["label"], best["probability"]) for each in answer["results"] for best in each["top_k"]}
        return found

    with engine_process(folder, socket, **settings) as process:
        first = first_words(process)
        assert (first["device"], first["runtime"]["name"]) == ("cuda:0", "eager")
        expected = asyncio.run(top())
        second = first_words(process)["runtime"]
        assert (second["name"], second["precision"]) == ("cuda_graphs", "bf16")
        label, probability = asyncio.run(top())
        assert label == expected[0]
        assert probability == pytest.approx(expected[1], abs=2e-2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0


def test_recording_says_that_it_needs_a_gpu(folder: Path) -> None:
    with pytest.raises(Unavailable, match="no CUDA device"):
        cuda_graphs.load(load(folder, "cpu"))
