"""`resnetd up` for everybody on the network: what it prints works as printed, and it stops, whatever hangs."""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from running import READY, RESNETD, Running, environment, processes_that_name
from samples import photo, zip_mini

from resnetd.client import Client
from store.keys import Scope, create_key
from store.layout import Layout


@dataclass(frozen=True)
class Up:
    """`lines`: the three requests that it printed."""

    running: Running
    layout: Layout
    key: str
    url: str
    lines: list[str]

    @property
    def folder(self) -> Path:
        return self.layout.root.parent

    def pid_of(self, module: str) -> int | None:
        """The process that runs `python -m <module>`, where there is one."""
        found = [line for line in processes_that_name(self.layout.root) if f" -m {module} " in line]
        return min((int(line.partition(":")[0]) for line in found), default=None)


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """An import's process stops when it has told its result: the job hangs, with what `RESNETD_FAULT` started."""
    folder = tmp_path_factory.mktemp("up")
    layout = Layout(folder / "var").create()
    key = create_key(layout, Scope.TRAIN)
    photo().save(folder / "cat.jpg")
    zip_mini(folder / "images.zip")
    command = [RESNETD, "up", "--data", str(layout.root), "--host", "0.0.0.0", "--port", "0", "--device", "cpu"]
    env = environment(RESNETD_FAULT="job.result_said:1:stop:300")
    running = Running([*command, "--drain-delay-seconds", "60"], log=folder / "up.log", env=env)
    try:
        url = running.line_with(READY).removeprefix(READY)
        yield Up(running, layout, key, url, [running.line_with("  curl ") for _ in range(3)])
    finally:
        running.stop()


def test_the_three_requests_that_it_prints_work_as_printed(up: Up):
    def answer(line: str, **variables: str) -> dict:
        env = {**environment(), **variables}
        told = subprocess.run(line, shell=True, cwd=up.folder, env=env, capture_output=True, timeout=60, check=True)
        found = json.loads(told.stdout)
        assert isinstance(found, dict)
        return found

    classified, accepted, models = (answer(line, RESNETD_KEY=up.key) for line in up.lines)
    assert classified["results"][0]["top_k"]
    assert accepted["job"]["id"]
    assert {each["name"] for each in models["data"]} >= {"cifar10-resnet20", "mnist-residual"}
    assert [answer(line)["status"] for line in up.lines] == [401] * 3


def test_it_stops_in_time_whatever_hangs_and_leaves_no_process(up: Up):
    with Client(up.url, up.key) as client:
        client.upload_dataset(up.folder / "images.zip")
    until = time.monotonic() + 60
    while (importer := up.pid_of("worker.importer")) is None or state(importer) != "T":
        assert time.monotonic() < until, "the import does not hang"
        time.sleep(0.05)
    engine = up.pid_of("app.engine")
    assert engine is not None
    os.kill(engine, signal.SIGSTOP)
    host, _, port = up.url.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port)), timeout=20) as upload:
        head = f"PUT /v1/datasets HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {up.key}\r\nContent-Length: 6"
        upload.sendall(f"{head}\r\n\r\nabc".encode())
        while not list(up.layout.uploads.glob("*.part")):
            assert time.monotonic() < until, "the upload does not begin"
            time.sleep(0.05)
        up.running.stop()  # within 15 s
    assert up.running.process.returncode == 0
    assert processes_that_name(up.layout.root) == []
    assert "bye bye" in (up.layout.redis / "redis.log").read_text(), "Redis ends in good order"


def state(pid: int) -> str:
    """`T` where a process is stopped; "" where there is none."""
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""
