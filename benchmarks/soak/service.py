"""`resnetd serve` as somebody runs it, on a data directory and a port of its own, with small models."""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from benchmarks.running import descendants
from benchmarks.soak.http_load import Address
from benchmarks.soak.waiting import until
from models.catalog import PRODUCTION, STARTERS, Catalog
from models.manifest import GOLDEN, WEIGHTS, Manifest
from store.layout import Layout
from store.settings import RuntimeName

STARTER = STARTERS / "cifar10-resnet20"
START_SECONDS = 240.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def publish(layout: Layout, name: str, job: str, *, harm: str = "") -> int:
    """The starter model as a new version of `name`; `harm`: `cut` weights, or others than it was proven with."""
    folder = layout.root / "work" / job
    shutil.copytree(STARTER, folder)
    manifest = Manifest.read(folder)
    weights = (folder / WEIGHTS).read_bytes()
    if harm == "cut":
        (folder / WEIGHTS).write_bytes(weights[: len(weights) // 2])
    elif harm == "other":
        import hashlib  # noqa: PLC0415 - only the harm needs it

        weights = weights[:-200_000] + bytes(200_000)  # zeros where the last layers were
        (folder / WEIGHTS).write_bytes(weights)
        manifest = manifest.model_copy(update={"weights_sha256": hashlib.sha256(weights).hexdigest()})
    lineage = manifest.lineage.model_copy(update={"job": job})
    manifest.model_copy(update={"lineage": lineage}).write(folder)
    assert (folder / GOLDEN).exists()
    version = Catalog(layout.models).publish(name, folder, job)
    shutil.rmtree(folder)
    return version


class Service:
    """The HTTP processes and the engines of one data directory. Its ledger is absent: nothing here needs jobs."""

    def __init__(self, folder: Path, *, model: str = "toy", workers: int = 1, **settings: str) -> None:
        self.layout = Layout(folder).create()
        self.port = free_port()
        self.model = model
        self.log = folder.parent / f"{folder.name}.log"
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("RESNETD_", "REDIS_"))}
        self.environment = {
            **kept,
            "MALLOC_ARENA_MAX": "2",
            "RESNETD_DATA": str(self.layout.root),
            "RESNETD_PORT": str(self.port),
            "RESNETD_MODEL": model,
            "RESNETD_HTTP_WORKERS": str(workers),
            "RESNETD_LOG_LEVEL": "WARNING",
            **{f"RESNETD_{name.upper()}": value for name, value in settings.items()},
        }
        self.process: subprocess.Popen[bytes] | None = None
        if model == "toy" and not Catalog(self.layout.models).versions("toy"):
            Catalog(self.layout.models).set_alias("toy", PRODUCTION, publish(self.layout, "toy", "job_first"))

    @property
    def address(self) -> Address:
        return "127.0.0.1", self.port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Returns when it is being started; `ready` waits for it."""
        program = Path(sys.executable).with_name("resnetd")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([program, "serve"], env=self.environment, stdout=log, stderr=log)

    async def ready(self) -> float:
        """Seconds until /readyz says 200."""
        began = time.perf_counter()
        async with httpx.AsyncClient(base_url=self.url, timeout=10, trust_env=False) as client:
            while time.perf_counter() - began < START_SECONDS:
                try:
                    if (await client.get("/readyz")).status_code == httpx.codes.OK:
                        return time.perf_counter() - began
                except httpx.HTTPError:
                    pass
                await asyncio.sleep(0.05)
        raise RuntimeError(f"{self.url} does not become ready; see {self.log}")

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Service"]:
        """Started and ready; killed in the end."""
        self.start()
        try:
            await self.ready()
            yield self
        finally:
            self.kill()

    async def settled(self) -> None:
        """Until the engines have measured which runtime is the best: that takes memory that is given back.

        At once where the setting is `eager`, which measures nothing.
        """
        if self.environment.get("RESNETD_RUNTIME") == RuntimeName.EAGER:
            return
        await until(lambda: all((each["runtime"] or {}).get("candidates") for each in self.engines()))

    async def stop(self) -> tuple[float, int]:
        """SIGTERM; seconds until it had ended, and its exit status."""
        assert self.process is not None
        began = time.perf_counter()
        self.process.send_signal(signal.SIGTERM)
        process = self.process
        await until(lambda: process.poll() is not None)
        return time.perf_counter() - began, process.returncode

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def engines(self) -> list[dict[str, Any]]:
        """The routing table's engines."""
        try:
            found: list[dict[str, Any]] = json.loads(self.layout.routes.read_bytes())["engines"]
        except FileNotFoundError:
            return []
        return found

    def state(self, version: int) -> str:
        """Of the engine of a version; empty where it has none."""
        return next((str(each["state"]) for each in self.engines() if each["version"] == version), "")

    def engine_pid(self) -> int | None:
        """The process of the engine that serves."""
        ready = [each["pid"] for each in self.engines() if each["state"] == "ready"]
        return int(str(ready[0])) if ready else None

    def pids(self) -> list[int]:
        """`resnetd serve` and all below it."""
        assert self.process is not None
        return [self.process.pid, *descendants(self.process.pid)]

    async def tell_fleet(self, op: str, model: str, version: int) -> dict[str, object]:
        """`ensure` or `unload`, and what the fleet says to it."""
        reader, writer = await asyncio.open_unix_connection(str(self.layout.fleet_socket))
        writer.write(json.dumps({"op": op, "model": model, "version": version}).encode() + b"\n")
        said: dict[str, object] = json.loads(await reader.readline())
        writer.close()
        return said
