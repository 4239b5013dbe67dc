"""Small real models, and real fleets and engines that serve them."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import numpy as np
import orjson
import torch
from PIL import Image
from safetensors.torch import save
from waiting import wait_for

from app.inference.client import Engines
from app.inference.routes import Route, Routes, RoutesFile
from benchmarks.manifests import lineage, manifest, write_hollow
from models import golden
from models.catalog import Catalog
from models.manifest import WEIGHTS, Manifest, NetworkSpec
from models.networks.registry import build
from models.runtime import Outputs, load, probabilities
from store.layout import Layout
from store.settings import Settings

CLASSES = ("cat", "dog", "ship")


def make_artifact(folder: Path, *, job: str, seed: int = 0, network: bool = True) -> Path:
    """What a train job leaves: a random cifar/resnet8, or where `network` is false files that only look so."""
    made = lineage(job, recipe="toy", seed=seed, created_at=datetime(2026, 1, 1, tzinfo=UTC))
    if not network:
        return write_hollow(folder, made, classes=CLASSES)
    folder.mkdir(parents=True)
    torch.manual_seed(seed)
    module = build(NetworkSpec(name="cifar/resnet8", num_classes=len(CLASSES), in_channels=3))
    weights = save({name: tensor.contiguous() for name, tensor in module.state_dict().items()})
    (folder / WEIGHTS).write_bytes(weights)
    unproven = manifest(made, classes=CLASSES, weights=weights)
    unproven.write(folder)
    images = np.random.default_rng(seed).integers(0, 256, size=(4, 32, 32, 3), dtype=np.uint8)
    digest = golden.write(folder, images, load(folder, "cpu").logits(images))
    unproven.model_copy(update={"golden_sha256": digest}).write(folder)
    return folder


def picture(seed: int = 0, *, size: int = 32) -> bytes:
    """A PNG of noise; a large one is flat, so that it is slow to decode but small."""
    pixels = np.random.default_rng(seed).integers(0, 256, size=(size, size, 3), dtype=np.uint8)
    if size > 200:
        pixels[:] = seed
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def assert_near(ours: Outputs, theirs: Outputs, of: Manifest) -> None:
    """The outputs of a bfloat16 runtime beside the reference's, for the same images."""
    assert ours.logits.dtype == ours.embedding.dtype == np.float32
    assert (ours.logits.shape, ours.embedding.shape) == (theirs.logits.shape, theirs.embedding.shape)
    np.testing.assert_allclose(probabilities(ours.logits, of), probabilities(theirs.logits, of), atol=2e-2)
    assert np.abs(ours.embedding - theirs.embedding).max() <= 0.05 * np.abs(theirs.embedding).max()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A zombie has ended: only its parent, init here, has not looked yet.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


class FleetProcess:
    """A `python -m app.fleet` on a data directory of its own, with model `toy` as the default."""

    def __init__(self, layout: Layout, *, max_engines: int = 4) -> None:
        self.layout = layout
        self.settings = Settings(data=layout.root, model="toy", device="cpu", max_engines=max_engines)
        self.catalog = Catalog(layout.models)
        self._routes = RoutesFile(layout.routes)
        environment = {
            **os.environ,
            "RESNETD_DATA": str(layout.root),
            "RESNETD_MODEL": "toy",
            "RESNETD_DEVICE": "cpu",
            "RESNETD_MAX_ENGINES": str(max_engines),
            "OMP_NUM_THREADS": "1",
        }
        self.process = subprocess.Popen([sys.executable, "-m", "app.fleet"], env=environment)

    @staticmethod
    def publish_default(layout: Layout, artifact: Path) -> None:
        catalog = Catalog(layout.models)
        catalog.set_alias("toy", "production", catalog.publish("toy", artifact, Manifest.read(artifact).lineage.job))

    def routes(self) -> Routes:
        return self._routes.read()

    def ready(self, model: str, version: int) -> Route:
        """Wait until this version serves."""

        def look() -> Route | None:
            route = self.routes().engine(model, version)
            return route if route is not None and route.state == "ready" else None

        return wait_for(look)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=20)


@contextmanager
def engine_process(
    folder: Path, socket: Path, *, version: int = 1, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """An engine without a fleet; use what it says first with `first_words`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "app.engine", folder, "--socket", socket, "--model", "toy", "--version", str(version)],
        stdout=subprocess.PIPE,
        env={**os.environ, "RESNETD_DEVICE": "cpu", "OMP_NUM_THREADS": "1", **environment},
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def first_words(process: subprocess.Popen[bytes]) -> dict[str, str]:
    assert process.stdout is not None
    said: dict[str, str] = orjson.loads(process.stdout.readline())
    return said


def with_client(fleet: FleetProcess, test: Callable[[Engines], Awaitable[None]]) -> None:
    """Run the test with a client of the fleet, as the HTTP processes have one."""

    async def main() -> None:
        engines = Engines(fleet.layout, fleet.settings)
        try:
            async with asyncio.timeout(90):
                await test(engines)
        finally:
            await engines.close()

    asyncio.run(main())
