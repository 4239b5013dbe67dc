"""The engine as a process: it proves its golden outputs, answers over its socket, and goes when told to."""

import asyncio
import hashlib
import shutil
import signal
import socket as sockets
import stat
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from serving_toys import CLASSES, engine_process, first_words, make_artifact, picture

from app.inference.connection import Connection, ConnectionLost
from models.runtime import load, probabilities


def ask(socket: Path, test: Callable[[Connection], Awaitable[None]]) -> None:
    async def main() -> None:
        connection = await Connection.open(str(socket))
        try:
            async with asyncio.timeout(60):
                await test(connection)
        finally:
            await connection.close()

    asyncio.run(main())


async def classify(connection: Connection, *images: bytes, k: int = 3, seconds: float = 30) -> dict[str, Any]:
    sizes = [len(image) for image in images]
    return await connection.request("classify", {"top_k": k, "sizes": sizes, "timeout": seconds}, images)


@pytest.fixture(scope="module")
def engine(
    artifacts: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    """An engine that may hold 40 images; its socket and process."""
    socket = tmp_path_factory.mktemp("engine") / "engine.sock"
    with engine_process(artifacts[0], socket, RESNETD_MAX_WAITING_IMAGES="40") as process:
        assert {"state": "ready", "device": "cpu"}.items() <= first_words(process).items()
        yield socket, process


def test_it_answers_as_its_network_computes_to_its_own_user_only(
    engine: tuple[Path, subprocess.Popen[bytes]], artifacts: list[Path]
) -> None:
    socket, _ = engine
    runtime = load(artifacts[0], "cpu")

    async def test(connection: Connection) -> None:
        images = [picture(seed) for seed in range(35)]
        pixels = np.stack([np.asarray(Image.open(file)) for file in map(BytesIO, images)])
        expected = probabilities(runtime.logits(pixels), runtime.manifest)
        single, many, bad = await asyncio.gather(
            classify(connection, images[0]), classify(connection, *images, k=99), classify(connection, b"", images[1])
        )
        for row, result in zip(expected, many["results"], strict=True):
            assert result["error"] is None
            assert [each["label"] for each in result["top_k"]] == [CLASSES[i] for i in np.argsort(-row)]
            got = {each["class_index"]: each["probability"] for each in result["top_k"]}
            np.testing.assert_allclose([got[i] for i in range(3)], row, atol=1e-5)
        assert single["results"][0]["top_k"][0]["label"] == many["results"][0]["top_k"][0]["label"]
        assert [each["error"] and each["error"]["code"] for each in bad["results"]] == ["empty_image", None]
        assert set(many["timings_ms"]) == {"decode", "queue", "compute", "total"}
        answer = await connection.request("ping", {"timeout": 10})
        assert answer["images"] == 0

    assert stat.S_IMODE(socket.stat().st_mode) == 0o600
    ask(socket, test)


def test_it_refuses_skips_and_drops_what_it_should_and_finishes_what_is_under_way_before_it_stops(
    engine: tuple[Path, subprocess.Popen[bytes]],
) -> None:
    socket, process = engine

    async def test(connection: Connection) -> None:
        for nonsense in (b"\xff" * 64, b"\0\0\0\2\0\0\0\0{}", b"GET / HTTP/1.1\r\n\r\n"):
            with sockets.socket(sockets.AF_UNIX) as other:
                other.settimeout(20)
                other.connect(str(socket))
                other.sendall(nonsense)
                assert other.recv(1) == b""
        wrong = await connection.request("classify", {"top_k": 1, "sizes": [5], "timeout": 9}, [b"four"])
        assert wrong["error"]["code"] == "internal"
        gone = asyncio.create_task(classify(connection, *[picture(1, size=1000)] * 32))
        await asyncio.sleep(0)
        assert (await connection.request("ping", {"timeout": 10}))["images"] == 32
        refused = await classify(connection, *[picture()] * 9)
        assert refused["error"] == {"code": "overloaded", "message": "32 images wait already; at most 40 may"}
        assert not gone.done()  # it was not kept waiting for those before it
        gone.cancel()
        await asyncio.sleep(0)
        assert (await connection.request("ping", {"timeout": 10}))["images"] == 0
        late = await classify(connection, *[picture(1, size=2000)] * 8, seconds=0.01)
        assert late["error"]["code"] == "deadline"
        under_way = asyncio.create_task(classify(connection, *[picture(1, size=1000)] * 32))
        await asyncio.sleep(0)
        await connection.request("ping", {"timeout": 10})  # answered after the other was taken in
        process.send_signal(signal.SIGTERM)
        answer = await under_way
        assert len(answer["results"]) == 32
        await asyncio.to_thread(process.wait, 12)
        with pytest.raises(ConnectionLost):
            await connection.request("ping", {"timeout": 10})

    ask(socket, test)
    assert process.wait(timeout=12) == 0


def test_it_refuses_to_serve_a_model_whose_outputs_are_not_its_golden_ones(
    artifacts: list[Path], tmp_path: Path
) -> None:
    """The weights of one model under the manifest and the golden outputs of another, made to look right."""
    folder = make_artifact(tmp_path / "model", job="job_x", seed=7)
    other = (artifacts[1] / "weights.safetensors").read_bytes()
    manifest = (folder / "model.json").read_text()
    mine = hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
    (folder / "model.json").write_text(manifest.replace(mine, hashlib.sha256(other).hexdigest()))
    (folder / "weights.safetensors").write_bytes(other)
    with engine_process(folder, tmp_path / "engine.sock") as process:
        said = first_words(process)
        assert said["state"] == "failed"
        assert "golden outputs are not reproduced" in said["reason"]
        assert process.wait(timeout=20) == 3
    assert not (tmp_path / "engine.sock").exists()


@pytest.mark.parametrize("manifest", [None, '{"format": 1}'])
def test_a_model_without_a_manifest_that_can_be_read_is_damaged_and_not_tried_again_and_again(
    artifacts: list[Path], tmp_path: Path, manifest: str | None
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(artifacts[0], folder)
    (folder / "model.json").unlink()
    if manifest is not None:
        (folder / "model.json").write_text(manifest)
    with engine_process(folder, tmp_path / "engine.sock") as process:
        assert "model.json is " in first_words(process)["reason"]
        assert process.wait(timeout=20) == 3


def test_it_says_why_it_cannot_start_on_a_device_that_is_absent(artifacts: list[Path], tmp_path: Path) -> None:
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "app.engine",
        artifacts[0],
        "--socket",
        tmp_path / "s",
        "--model",
        "m",
    ]
    done = subprocess.run(
        [*command, "--version", "1", "--device", "cuda:77"], capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert b'"state":"failed"' in done.stdout
    assert b"cuda:77" in done.stdout
