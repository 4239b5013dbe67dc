"""/v1/datasets: what is acknowledged is on disk, and nothing else is left."""

import asyncio
import errno
import fcntl
import io
import json
import os
import socket
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from edge_kit import Server, dataset_on_disk, problem, serving, wait_for
from samples import tiny_zip

from app.problems import ProblemError
from app.services.dataset_uploads import dataset_name
from app.services.datasets import Datasets, UploadRecord
from app.services.ledger import AsyncLedger
from app.services.uploads import Upload, sweep
from jobs.model import JobError, Kind, Lane
from store.datasets import UPLOAD
from store.layout import Layout

ONE = tiny_zip(b"one")


def stored(server: Server, dataset_id: str) -> bytes:
    return (server.layout.dataset(dataset_id) / UPLOAD).read_bytes()


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_a_raw_body_is_on_disk_and_its_import_in_the_ledger_when_the_answer_comes(server, ledger, method):
    archive = tiny_zip(b"pets" * 1000)
    answer = server.http.request(method, "/v1/datasets", params={"name": "my pets"}, content=archive)
    assert answer.status_code == 202
    body = answer.json()
    assert body["id"].startswith("ds_")
    assert answer.headers["location"] == f"/v1/datasets/{body['id']}"
    assert stored(server, body["id"]) == archive
    job = ledger.get(body["job"]["id"])
    assert (job.kind, job.spec["dataset"], job.spec["name"]) == (Kind.IMPORT, body["id"], "my pets")
    shown = server.http.get(answer.headers["location"]).json()
    assert (shown["status"], shown["name"]) == ("importing", "my pets")
    assert (shown["bytes"], shown["job"]) == (len(archive), body["job"])


@pytest.mark.parametrize("name_first", [True, False])
def test_a_form_with_a_name_and_one_file_is_the_same(server, name_first):
    content = tiny_zip(bytes(range(256)) * 8000 + b"\r\n--no-boundary\r\n")
    parts = [("name", (None, "pets")), ("anything", ("pets.tar.gz", io.BytesIO(content)))]
    answer = server.http.post("/v1/datasets", files=parts if name_first else parts[::-1])
    assert answer.status_code == 202
    assert stored(server, answer.json()["id"]) == content
    shown = server.http.get(f"/v1/datasets/{answer.json()['id']}").json()
    assert (shown["name"], shown["filename"]) == ("pets", "pets.tar.gz")


def test_curl_t_uploads(server, tmp_path):
    archive = tmp_path / "pets.zip"
    archive.write_bytes(tiny_zip(b"z" * 2_000_000))
    url = f"{server.url}/v1/datasets?name=pets"
    told = subprocess.run(["curl", "-sS", "--max-time", "30", "-T", archive, url], capture_output=True, check=True)
    assert json.loads(told.stdout)["bytes"] == archive.stat().st_size


def test_the_same_idempotency_key_with_the_same_bytes_is_one_dataset(server):
    headers = {"Idempotency-Key": uuid4().hex}
    first = server.http.post("/v1/datasets", params={"name": "a"}, content=ONE, headers=headers)
    again = server.http.post("/v1/datasets", params={"name": "a"}, content=ONE, headers=headers)
    assert (again.status_code, again.json()) == (202, first.json())
    other = server.http.post("/v1/datasets", params={"name": "a"}, content=tiny_zip(b"two"), headers=headers)
    problem(other, 422, "idempotency_conflict")
    assert stored(server, first.json()["id"]) == ONE


def test_a_repetition_learns_what_came_of_an_upload_that_is_still_being_written(server, monkeypatch):
    """Its client did not wait for the answer: the disk was busy for longer than that."""
    asked = {"params": {"name": "a"}, "content": ONE, "headers": {"Idempotency-Key": uuid4().hex}}
    first = server.http.post("/v1/datasets", **asked)
    upload = server.layout.dataset(first.json()["id"]) / UPLOAD
    hidden = upload.rename(upload.with_name(".hidden"))
    with monkeypatch.context() as patched:
        patched.setattr("app.services.uploads._SETTLING_SECONDS", 0.1)
        answer = server.http.post("/v1/datasets", **asked)
    problem(answer, 503, "upload_in_progress")
    assert int(answer.headers["retry-after"]) > 0
    assert parts_left(server.layout) == []
    with ThreadPoolExecutor(1) as pool:
        again = pool.submit(httpx.post, f"{server.url}/v1/datasets", timeout=30, **asked)
        wait_for(lambda: parts_left(server.layout) != [])
        hidden.rename(upload)
        assert (again.result().status_code, again.result().json()) == (202, first.json())


def parts_left(layout: Layout) -> list[Path]:
    return list(layout.uploads.iterdir())


def test_a_repetition_that_fails_leaves_what_the_first_had_acknowledged(layout, monkeypatch):
    folder, fsync = layout.dataset("ds_same"), os.fsync
    about = {"name": "a", "filename": None, "bytes": len(ONE), "sha256": "0", "job": "job_1", "created_at": 0}
    record = UploadRecord.model_validate({"id": "ds_same", **about})
    first, again = (Upload(layout, "ds_same", repeatable=True, folder=folder) for _ in range(2))
    first.write(ONE)
    first.settle(record)
    whole = {each.name: each.read_bytes() for each in folder.iterdir()}

    def full(fd):
        if fd == again._fd:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(fd)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ProblemError, match="disk is full"):
        again.settle(record)
    assert {each.name: each.read_bytes() for each in folder.iterdir()} == whole
    for each in (first, again):
        each.close()
    assert parts_left(layout) == []


def test_refused_uploads_are_clear_problems_and_leave_nothing(server, settings):
    http, count = server.http, len(list(server.layout.datasets.iterdir()))
    problem(http.post("/v1/datasets", content=b""), 422, "empty_upload")
    problem(http.post("/v1/datasets", content=b"x" * (settings.max_dataset_bytes + 1)), 413, "body_too_large")
    problem(http.post("/v1/datasets", content=iter([tiny_zip(b"x" * 1_000_000)] * 6)), 413, "body_too_large")
    problem(http.post("/v1/datasets", files={"name": (None, "pets")}), 422, "no_file")
    problem(http.post("/v1/datasets", files={"nmae": (None, "pets"), "f": ("a", ONE)}), 422, "unknown_field")
    problem(http.post("/v1/datasets", content=ONE, params={"name": "a\nb"}), 422, "invalid_name")
    problem(http.post("/v1/datasets", content=ONE, params={"name": "n" * 101}), 422, "invalid_name")
    cut = b'--x\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\ncut off'
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    problem(http.post("/v1/datasets", content=cut, headers=headers), 400, "invalid_multipart")
    assert parts_left(server.layout) == []
    assert len(list(server.layout.datasets.iterdir())) == count


def test_a_declared_length_over_the_limit_is_refused_before_a_byte_is_read(server):
    with socket.create_connection(server.address, timeout=10) as connection:
        connection.sendall(b"PUT /v1/datasets HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 413")


def test_a_client_that_goes_away_midway_leaves_no_part(alone):
    with serving(alone) as server:
        with socket.create_connection(server.address, timeout=10) as connection:
            head = b"PUT /v1/datasets HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4000000\r\n\r\n"
            connection.sendall(head + tiny_zip(b"x" * 2_000_000))
            while not parts_left(server.layout):
                server.http.get("/livez")
        while parts_left(server.layout):
            server.http.get("/livez")
        assert list(server.layout.datasets.iterdir()) == []


def test_a_start_sweeps_what_dead_uploads_left_and_nothing_else(tmp_path):
    layout = Layout(tmp_path / "data").create()
    (layout.uploads / "ds_dead.1.part").write_bytes(b"half")
    layout.dataset("ds_dead").mkdir()
    live = Upload(layout, "ds_live", repeatable=False, folder=layout.dataset("ds_live"))
    assert sweep(layout) == ["ds_dead.1.part"]
    assert not layout.dataset("ds_dead").exists()
    assert len(parts_left(layout)) == 1
    live.close()
    assert parts_left(layout) == []


def test_an_upload_whose_job_a_crash_cut_off_is_handed_in_at_the_next_start(alone, ledger):
    with serving(alone) as server:
        made = server.http.post("/v1/datasets", content=ONE).json()
    job_id = made["job"]["id"]
    ledger.cancel(job_id)
    ledger.redis.delete(f"rn:job:{job_id}", f"rn:job:{job_id}:events")
    ledger.redis.zrem("rn:state:cancelled", job_id)
    ledger.redis.zrem("rn:unarchived", job_id)
    (Layout(alone.data).job(job_id) / "record.json").unlink(missing_ok=True)
    with serving(alone) as server:
        while (answer := server.http.get(f"/v1/jobs/{job_id}")).status_code == 404:
            pass
        assert (answer.json()["kind"], answer.json()["state"]) == ("import", "queued")


def test_a_failed_import_shows_its_error(server, ledger):
    made = server.http.post("/v1/datasets", content=ONE).json()
    while (claim := ledger.claim(Lane.CPU, owner="test", token=uuid4().hex)).job_id != made["job"]["id"]:
        ledger.fail(claim, JobError(code="swept", message="of another test"))
    ledger.fail(claim, JobError(code="not_an_archive", message="It is no zip.", hint="Send a zip."))
    shown = server.http.get(f"/v1/datasets/{made['id']}").json()
    assert (shown["status"], shown["error"]["code"]) == ("failed", "not_an_archive")
    assert server.http.post(f"/v1/jobs/{made['job']['id']}/retry").status_code == 202
    assert server.http.get(f"/v1/datasets/{made['id']}").json()["status"] == "importing"
    while (claim := ledger.claim(Lane.CPU, owner="test", token=uuid4().hex)) is not None:
        ledger.fail(claim, JobError(code="not_an_archive", message="It is no zip."))
    assert server.http.delete(f"/v1/datasets/{made['id']}").status_code == 204
    problem(server.http.get(f"/v1/datasets/{made['id']}"), 404, "dataset_not_found")


def test_an_imported_dataset_shows_its_descriptor_and_can_be_deleted_unless_a_job_uses_it(server):
    dataset_id = dataset_on_disk(server.layout, f"ds_{uuid4().hex}")
    shown = server.http.get(f"/v1/datasets/{dataset_id}").json()
    assert (shown["status"], shown["classes"]) == ("ready", ["cat", "dog"])
    assert shown["splits"] == {"train": {"images": 2, "per_class": [1, 1]}}
    assert shown["image"]["sizes"] == {"32x32": 2}
    assert shown["report"]["corrupt"] == []
    job = server.http.post("/v1/jobs", json={"kind": "train", "dataset": dataset_id, "recipe": "mnist"}).json()
    body = problem(server.http.delete(f"/v1/datasets/{dataset_id}"), 409, "dataset_in_use")
    assert job["id"] in str(body["detail"])
    server.http.post(f"/v1/jobs/{job['id']}/cancel")
    assert server.http.delete(f"/v1/datasets/{dataset_id}").status_code == 204
    assert not server.layout.dataset(dataset_id).exists()
    problem(server.http.delete(f"/v1/datasets/{dataset_id}"), 404, "dataset_not_found")


def test_who_is_cancelled_while_it_waits_for_a_dataset_does_not_keep_it(layout, settings):
    """A deletion holds it; afterwards nobody does."""
    folder = layout.dataset(dataset_on_disk(layout, "ds_wanted"))
    waits = threading.Event()

    async def main() -> None:
        ledger = AsyncLedger(str(settings.redis_url))
        datasets = Datasets(ledger, layout)
        lock = datasets._lock

        def tell(*args):
            waits.set()
            return lock(*args)

        datasets._lock = tell
        deleting = os.open(folder, os.O_RDONLY)
        fcntl.flock(deleting, fcntl.LOCK_EX)
        wanting = asyncio.create_task(datasets.kept("ds_wanted"))
        await asyncio.to_thread(waits.wait, 20)
        wanting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await wanting
        os.close(deleting)
        await asyncio.wait_for(datasets.delete("ds_wanted"), 20)
        ledger.close()

    asyncio.run(main())
    assert not folder.exists()


def test_datasets_are_pages_newest_first(server):
    uploads = [server.http.post("/v1/datasets", content=ONE).json() for _ in range(3)]
    made = [each["id"] for each in uploads]
    first = server.http.get("/v1/datasets", params={"limit": 2}).json()
    assert [each["id"] for each in first["data"]] == [made[2], made[1]]
    assert first["has_more"]
    server.http.post(f"/v1/jobs/{uploads[1]['job']['id']}/cancel")
    assert server.http.delete(f"/v1/datasets/{made[1]}").status_code == 204  # where the next page begins
    rest = server.http.get("/v1/datasets", params={"limit": 1, "after": first["next"]}).json()
    assert rest["data"][0]["id"] == made[0]
    problem(server.http.get("/v1/datasets", params={"after": "ds_none"}), 422, "invalid_cursor")


def test_a_dataset_id_is_never_a_path(http):
    for dataset_id in ("..", "%2e%2e", "ds_..", "ds_%2f", "x" * 70):
        assert http.get(f"/v1/datasets/{dataset_id}").status_code == 404
        assert http.delete(f"/v1/datasets/{dataset_id}").status_code in (404, 405)


def test_a_dataset_is_called_as_asked_else_like_its_file():
    assert dataset_name(" pets ", "x.zip", default="ds_1") == "pets"
    assert dataset_name(None, "pets.tar.gz", default="ds_1") == "pets"
    assert dataset_name(None, None, default="ds_1") == "ds_1"
