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
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import anyio.to_thread
import httpx
import pytest
from edge_kit import Server, dataset_on_disk, problem, serving
from samples import tiny_zip
from waiting import wait_for

from app.problems import ProblemError, UnavailableError
from app.services.dataset_uploads import dataset_name
from app.services.dataset_views import UploadRecord
from app.services.datasets import Datasets
from app.services.jobs import Jobs
from app.services.ledger import AsyncLedger
from app.services.upload_parts import sweep
from app.services.uploads import Upload
from jobs.answers import Claim
from jobs.ledger import Ledger
from jobs.model import JobError, Kind, Lane, Priority
from store.datasets import UPLOAD, Dataset, FileNote, Report, Truncated
from store.layout import Layout
from store.space import RESERVE_PART

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


def test_curl_t_to_the_list_calls_the_dataset_like_the_file(server, tmp_path):
    """It puts the file's name behind an address that ends in a slash."""
    archive = tmp_path / "my pets.tar.gz"
    archive.write_bytes(ONE)
    command = ["curl", "-sS", "--max-time", "20", "-T", archive, f"{server.url}/v1/datasets/"]
    told = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert stored(server, told["id"]) == ONE
    shown = server.http.get(f"/v1/datasets/{told['id']}").json()
    assert (shown["name"], shown["filename"], shown["job"]) == ("my pets", "my pets.tar.gz", told["job"])


def test_a_name_that_is_asked_for_comes_before_the_one_of_the_file(server):
    named = server.http.put("/v1/datasets/pets.zip", params={"name": "mine"}, content=ONE)
    assert (named.status_code, named.json()["name"]) == (202, "mine")
    assert named.headers["location"] == f"/v1/datasets/{named.json()['id']}"
    form = server.http.put("/v1/datasets/pets.zip", files={"f": ("other.zip", ONE)}).json()
    assert form["name"] == "pets"
    bare = server.http.put("/v1/datasets", content=ONE).json()
    assert bare["name"] == bare["id"]


def test_a_file_in_the_address_is_refused_by_its_name_and_a_dataset_is_never_replaced(server):
    body = problem(server.http.put("/v1/datasets/pets.rar", content=b"Rar!" + bytes(9000)), 422, "unsupported_archive")
    assert "'pets.rar'" in str(body["detail"])
    there = server.http.put("/v1/datasets", content=ONE).json()["id"]
    body = problem(server.http.put(f"/v1/datasets/{there}", content=ONE), 422, "invalid_filename")
    assert body["errors"][0]["pointer"] == "/path/dataset_id"
    assert parts_left(server.layout) == []


def test_an_import_has_the_priority_and_the_time_that_the_query_or_the_form_names(server, ledger):
    terms = {"priority": "high", "max_seconds": "90"}
    for sent in ({"params": terms, "content": ONE}, {"data": terms, "files": {"f": ("a.zip", ONE)}}):
        job = ledger.get(server.http.post("/v1/datasets", **sent).json()["job"]["id"])
        assert (job.priority, job.max_seconds) == (Priority.HIGH, 90.0)
        assert not {"priority", "max_seconds"} & set(job.spec)


@pytest.mark.parametrize(("field", "value"), [("priority", "urgent"), ("max_seconds", "0"), ("max_seconds", "inf")])
def test_terms_that_make_no_sense_are_refused_at_their_field_and_leave_nothing(server, field, value):
    before = len(list(server.layout.datasets.iterdir()))
    by_query = server.http.post("/v1/datasets", params={field: value}, content=ONE)
    by_form = server.http.post("/v1/datasets", data={field: value}, files={"f": ("a.zip", ONE)})
    for place, answer in (("/query", by_query), ("#", by_form)):
        assert problem(answer, 422, "invalid_request")["errors"][0]["pointer"] == f"{place}/{field}"
    assert parts_left(server.layout) == []
    assert len(list(server.layout.datasets.iterdir())) == before


def test_the_same_idempotency_key_with_the_same_bytes_is_one_dataset(server):
    headers = {"Idempotency-Key": uuid4().hex}
    first = server.http.post("/v1/datasets", params={"name": "a"}, content=ONE, headers=headers)
    again = server.http.post("/v1/datasets", params={"name": "a"}, content=ONE, headers=headers)
    assert (again.status_code, again.json()) == (202, first.json())
    other = server.http.post("/v1/datasets", params={"name": "a"}, content=tiny_zip(b"two"), headers=headers)
    problem(other, 422, "idempotency_conflict")
    sooner = {"name": "a", "priority": "high"}
    problem(server.http.post("/v1/datasets", params=sooner, content=ONE, headers=headers), 422, "idempotency_conflict")
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
    with pytest.raises(ProblemError, match="no space for the upload"):
        again.settle(record)
    assert {each.name: each.read_bytes() for each in folder.iterdir()} == whole
    for each in (first, again):
        each.close()
    assert parts_left(layout) == []


@pytest.mark.parametrize(
    ("number", "status", "code"),
    [(errno.ENOSPC, 507, "disk_full"), (errno.EDQUOT, 507, "disk_full"), (errno.EIO, 500, "disk_error")],
)
def test_a_disk_that_does_not_take_an_upload_is_told_and_nothing_is_left(server, monkeypatch, number, status, code):
    def broken(_: Path) -> None:
        raise OSError(number, os.strerror(number))

    def kept() -> list[Path]:
        return [*server.layout.datasets.iterdir(), *server.layout.jobs.glob("*/request.json")]

    before = kept()
    monkeypatch.setattr("app.services.uploads.fsync_dir", broken)
    problem(server.http.put("/v1/datasets/pets.zip", content=ONE), status, code)
    problem(server.http.put("/v1/models?name=mine", content=b"bytes"), status, code)
    assert set(kept()) == set(before)
    assert parts_left(server.layout) == []


def leave(monkeypatch, spare: int) -> None:
    """From now on a disk of 1 GiB has so many bytes beside its reserve."""
    reserve = (1 << 30) // RESERVE_PART
    found = SimpleNamespace(f_blocks=1 << 30, f_frsize=1, f_bavail=reserve + spare)
    monkeypatch.setattr("store.space.os.statvfs", lambda _: found)


@pytest.mark.parametrize("path", ["/v1/datasets/pets.zip", "/v1/models?name=mine"])
def test_an_upload_that_would_take_the_disks_reserve_is_refused_before_its_body_is_read(server, monkeypatch, path):
    leave(monkeypatch, len(ONE) - 1)
    with socket.create_connection(server.address, timeout=10) as connection:
        head = f"PUT {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(ONE)}\r\n\r\n"
        connection.sendall(head.encode())
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 507 "), answer
    assert b'"disk_full"' in answer
    leave(monkeypatch, len(ONE) + 10_000)
    assert server.http.put(path, content=ONE).status_code == 202


def test_a_body_of_unknown_length_is_refused_where_it_would_begin_to_take_the_reserve(server, monkeypatch):
    leave(monkeypatch, 3_000_000)
    sent = []

    def pieces() -> Iterator[bytes]:
        for piece in [tiny_zip(b"x" * 1_000_000)] * 4:
            sent.append(len(piece))
            if len(sent) == 3:
                leave(monkeypatch, 900_000)
            yield piece

    problem(server.http.post("/v1/datasets", content=pieces()), 507, "disk_full")
    assert parts_left(server.layout) == []


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
            wait_for(lambda: parts_left(server.layout) != [])
        wait_for(lambda: parts_left(server.layout) == [])
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
        asked = {"priority": "low", "max_seconds": 90}
        made = server.http.post("/v1/datasets", params=asked, content=ONE).json()
    job_id = made["job"]["id"]
    ledger.cancel(job_id)
    ledger.redis.delete(f"rn:job:{job_id}", f"rn:job:{job_id}:events", f"rn:idempotency:upload:{made['id']}")
    ledger.redis.zrem("rn:state:cancelled", job_id)
    ledger.redis.zrem("rn:unarchived", job_id)
    (Layout(alone.data).job(job_id) / "record.json").unlink(missing_ok=True)
    with serving(alone) as server:
        wait_for(lambda: server.http.get(f"/v1/jobs/{job_id}").status_code != 404)
        again = server.http.get(f"/v1/jobs/{job_id}").json()
        assert (again["kind"], again["state"]) == ("import", "queued")
        assert (again["priority"], again["max_seconds"]) == ("low", 90.0)


def claimed_import(ledger: Ledger, job_id: str) -> Claim:
    while True:
        claim = ledger.claim(Lane.CPU, owner="test", token=uuid4().hex)
        assert claim is not None
        if claim.job_id == job_id:
            return claim
        ledger.fail(claim, JobError(code="swept", message="of another test"))


def test_a_look_at_a_dataset_may_wait_for_the_end_of_its_import(server, ledger):
    made = server.http.post("/v1/datasets", content=ONE).json()
    url = f"/v1/datasets/{made['id']}"
    assert server.http.get(url, params={"wait": 0.2}).json()["status"] == "importing"
    claim = claimed_import(ledger, made["job"]["id"])
    threading.Timer(0.3, ledger.fail, (claim, JobError(code="not_an_archive", message="It is no zip."))).start()
    shown = server.http.get(url, params={"wait": 30}, timeout=10).json()
    assert (shown["status"], shown["error"]["code"]) == ("failed", "not_an_archive")
    again = server.http.post(f"/v1/jobs/{made['job']['id']}/retry").json()["id"]
    threading.Timer(0.3, ledger.cancel, (again,)).start()
    assert server.http.get(url, params={"wait": 30}, timeout=10).json()["status"] == "cancelled"


def test_a_dataset_that_is_there_is_not_waited_for_nor_one_that_is_not(http, dataset):
    assert http.get(f"/v1/datasets/{dataset}", params={"wait": 60}, timeout=10).json()["status"] == "ready"
    problem(http.get("/v1/datasets/ds_none", params={"wait": 60}, timeout=10), 404, "dataset_not_found")
    problem(http.get(f"/v1/datasets/{dataset}", params={"wait": 61}), 422, "invalid_request")


def test_datasets_filter_by_name_and_status(server, dataset):
    name = uuid4().hex
    uploads = [server.http.post("/v1/datasets", params={"name": name}, content=ONE).json() for _ in range(3)]
    first, second, third = (each["id"] for each in uploads)
    server.http.post(f"/v1/jobs/{uploads[1]['job']['id']}/cancel")

    def listed(**query: str) -> list[str]:
        return [each["id"] for each in server.http.get("/v1/datasets", params=query).json()["data"]]

    assert listed(name=name) == [third, second, first]
    assert listed(name=name, status="cancelled") == [second]
    assert listed(name=name, status="ready,importing") == [third, first]
    assert dataset in listed(status="ready")
    assert listed(name=name[:-1]) == listed(name=name, status="ready") == []
    page = server.http.get("/v1/datasets", params={"name": name, "status": "importing", "limit": 1}).json()
    assert ([each["id"] for each in page["data"]], page["has_more"]) == ([third], True)
    assert listed(name=name, status="importing", after=page["next"]) == [first]
    body = problem(server.http.get("/v1/datasets", params={"status": "happy"}), 422, "invalid_request")
    assert body["errors"] == [{"pointer": "/query/status", "detail": "'happy' is no status of a dataset"}]


def test_a_failed_import_shows_its_error(server, ledger):
    made = server.http.post("/v1/datasets", content=ONE).json()
    claim = claimed_import(ledger, made["job"]["id"])
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


def test_a_list_of_datasets_has_numbers_for_the_files_that_a_dataset_itself_names(server):
    dataset_id = dataset_on_disk(server.layout, f"ds_{uuid4().hex}")
    folder = server.layout.dataset(dataset_id)
    notes = [FileNote(file=f"{n}.jpg", reason="truncated") for n in range(3)]
    report = Report(images=2, corrupt=notes, skipped=notes[:1], truncated=Truncated(corrupt=7))
    Dataset.read(folder).model_copy(update={"report": report, "name": dataset_id}).write(folder)
    whole = server.http.get(f"/v1/datasets/{dataset_id}").json()
    assert whole["report"] == report.model_dump(mode="json")
    (listed,) = server.http.get("/v1/datasets", params={"name": dataset_id}).json()["data"]
    short = {**whole["report"], "corrupt": [], "skipped": [], "truncated": {"corrupt": 10, "skipped": 1}}
    assert listed == {**whole, "report": short}


def test_who_is_cancelled_while_it_waits_for_a_dataset_does_not_keep_it(layout, settings):
    """A deletion holds it; afterwards nobody does."""
    folder = layout.dataset(dataset_on_disk(layout, "ds_wanted"))

    async def main() -> None:
        ledger = AsyncLedger(str(settings.redis_url))
        datasets = Datasets(ledger, layout, Jobs(ledger, layout, str(settings.redis_url)))
        deleting = os.open(folder, os.O_RDONLY)
        fcntl.flock(deleting, fcntl.LOCK_EX)
        wanting = asyncio.create_task(datasets.kept("ds_wanted"))
        await asyncio.sleep(0.1)
        assert not wanting.done()
        wanting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await wanting
        os.close(deleting)
        await asyncio.wait_for(datasets.delete("ds_wanted"), 20)
        ledger.close()

    asyncio.run(main())
    assert not folder.exists()


def test_a_dataset_that_others_hold_for_long_is_busy_and_occupies_no_thread(layout, settings, monkeypatch):
    monkeypatch.setattr("app.services.folder_locks._PATIENCE_SECONDS", 0.1)
    folder = layout.dataset(dataset_on_disk(layout, "ds_held"))

    async def main() -> None:
        ledger = AsyncLedger(str(settings.redis_url))
        datasets = Datasets(ledger, layout, Jobs(ledger, layout, str(settings.redis_url)))
        deleting = os.open(folder, os.O_RDONLY)
        fcntl.flock(deleting, fcntl.LOCK_EX)
        anyio.to_thread.current_default_thread_limiter().total_tokens = 1
        waiting = [asyncio.create_task(datasets.kept("ds_held")) for _ in range(3)]
        await asyncio.sleep(0)
        assert await asyncio.wait_for(anyio.to_thread.run_sync(lambda: "a thread is free"), 20)
        for each in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(each, UnavailableError)
            assert each.code == "dataset_busy"
        os.close(deleting)
        with await datasets.kept("ds_held"):
            pass
        ledger.close()

    asyncio.run(main())


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
