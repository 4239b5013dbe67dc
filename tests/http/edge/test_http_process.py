"""`python -m app` as a process of its own: refusals, logs, memory, and how it stops."""

import json
import os
import re
import stat
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from http_process import http_environment, http_process
from samples import tiny_zip


def test_it_imports_neither_torch_nor_celery():
    code = "import app.main, sys; print([name for name in ('torch', 'celery', 'worker') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"[]\n"


def test_it_refuses_an_address_that_others_reach_while_there_is_no_key(layout, redis_url):
    env = http_environment(layout, redis_url, RESNETD_HOST="0.0.0.0", RESNETD_PORT="0")
    ended = subprocess.run([sys.executable, "-m", "app"], env=env, capture_output=True, timeout=30, check=False)
    assert ended.returncode == 2
    assert b"resnetd keys create" in ended.stderr


def test_it_stops_within_ten_seconds_though_a_stream_is_open_and_every_log_line_is_json(layout, redis_url, tmp_path):
    log = tmp_path / "log"
    with (
        http_process(layout, redis_url, log=log) as (running, url),
        httpx.Client(base_url=url, timeout=30) as http,
    ):
        not_ready = http.get("/readyz")
        assert not_ready.status_code == 503
        assert not_ready.json()["not_ready"][0] == "engine"
        job_id = http.post("/v1/datasets", content=tiny_zip()).json()["job"]["id"]
        with http.stream("GET", f"/v1/jobs/{job_id}/events", headers={"Accept": "text/event-stream"}) as stream:
            lines = stream.iter_lines()
            while next(lines) != "event: queued":
                pass
            started = time.monotonic()
            running.terminate()
            assert "event: end" not in list(lines)
        running.wait(10)
        assert time.monotonic() - started < 10
        assert running.returncode == 0
    records = [json.loads(line) for line in log.read_bytes().splitlines()]
    assert {each["part"] for each in records} == {"http"}
    access = [each for each in records if each["logger"] == "resnetd.access"]
    assert {"method", "route", "status", "milliseconds", "request_id"} <= set(access[-1])


def test_what_it_writes_is_its_users_alone(layout, redis_url):
    with http_process(layout, redis_url) as (_, url):
        made = httpx.post(f"{url}/v1/datasets", content=tiny_zip(), timeout=30).json()
    folder = layout.dataset(made["id"])
    modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in (folder, *folder.iterdir())}
    assert modes == {made["id"]: 0o700, "request.json": 0o600, "upload": 0o600}


def peak_memory(pid: int) -> int:
    """VmHWM in bytes."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


@pytest.mark.parametrize("files", [0, 1, 2])
def test_an_upload_of_200_mb_costs_less_than_50_mb_of_memory(layout, redis_url, files):
    """As the body, as a form's file, and as files of a form that become one archive."""
    magic = b"\0\0\x08\x03" if files > 1 else b"PK\3\4"
    piece = magic + os.urandom((1 << 20) - 4)
    head = b'--x\r\nContent-Disposition: form-data; name="f"; filename="%d"\r\n\r\n'
    body = [part for n in range(files) for part in (head % n, *[piece] * (200 // files), b"\r\n")] + [b"--x--\r\n"]
    headers = {"Content-Type": "multipart/form-data; boundary=x"} if files else {}
    with http_process(layout, redis_url) as (running, url):
        assert httpx.get(f"{url}/livez", timeout=30).status_code == 200
        before = peak_memory(running.pid)
        answer = httpx.post(
            f"{url}/v1/datasets",
            content=iter(body if files else [piece] * 200),
            headers=headers,
            timeout=120,
        )
        assert 0 <= answer.json()["bytes"] - (200 << 20) <= (1000 if files > 1 else 0)
        assert peak_memory(running.pid) - before < 50_000_000
