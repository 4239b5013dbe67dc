"""What a second `resnetd up` finds, and how a part that dies comes back."""

import os
import signal
import subprocess
import time
from pathlib import Path

from running import RESNETD, STOP_SECONDS, processes_that_name, run_up
from samples import photo, png, zip_mini

from resnetd.client import Client


def pid_of(module: str, data: Path) -> int:
    """The process of this stack that runs `python -m <module>`."""
    found = [line for line in processes_that_name(data) if f" -m {module}" in line]
    return min(int(line.partition(":")[0]) for line in found)


def test_a_second_start_finds_models_datasets_and_jobs_and_a_killed_server_refuses_no_connection(tmp_path):
    data, log = tmp_path / "var", tmp_path / "up.log"
    running, url = run_up(data, log=log)
    try:
        with Client(url) as client:
            accepted = client.upload_dataset(zip_mini(tmp_path / "mini.zip"), name="kept")
            before = client.wait(accepted["job"]["id"])
            assert before["state"] == "succeeded", before["error"]
            events = list(client.events(before["id"]))
    finally:
        running.stop(by=signal.SIGINT)
    assert processes_that_name(data) == []

    began = time.monotonic()
    running, url = run_up(data, log=log)
    assert time.monotonic() - began < STOP_SECONDS, "a second start is ready within 15 s"
    try:
        with Client(url) as client:
            assert client.dataset(accepted["id"])["name"] == "kept"
            assert client.job(before["id"]) == before
            assert list(client.events(before["id"])) == events
            assert client.classify([png(photo())])["version"] == 1
        os.kill(pid_of("app", data), signal.SIGKILL)
        with Client(url) as client:  # a connection of its own, made while nobody accepts
            assert client.job(before["id"]) == before
    finally:
        running.stop()
    assert processes_that_name(data) == []


def test_a_second_up_on_the_same_data_directory_is_refused_and_harms_nobody(stack):
    jobs = stack.client.jobs()
    second = subprocess.run(
        [RESNETD, "up", "--data", str(stack.data), "--port", "0"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert second.returncode == 1
    assert "Another `resnetd up` runs on" in second.stderr
    assert stack.client.jobs() == jobs
