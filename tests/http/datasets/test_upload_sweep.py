"""What dead uploads and deletions left goes, whatever else happens; what lives stays."""

import fcntl
import os
import threading
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest
from edge_kit import serving
from samples import tiny_zip
from waiting import wait_for

from app.services import upload_parts
from app.services.adoptions import AdoptionRecord, Adoptions
from app.services.dataset_views import UploadRecord
from app.services.upload_parts import open_part, sweep
from app.services.uploads import Upload
from store.files import write_atomic
from store.layout import Layout


def settled(layout: Layout, name: str) -> str:
    """An adoption's upload, acknowledged by a process that died before its job was handed in."""
    upload = Upload(layout, name, repeatable=True, folder=layout.job(name))
    upload.write(b"bytes")
    about = {"id": name, "filename": None, "bytes": 5, "sha256": upload.sha256, "asked": {"register_as": "mine"}}
    upload.settle(AdoptionRecord.model_validate({**about, "created_at": datetime.now(UTC)}))
    upload.close()
    return name


def test_an_upload_whose_record_is_damaged_keeps_no_other_from_its_job(alone):
    layout = Layout(alone.data).create()
    for folder in (layout.job(f"job_{uuid4().hex}"), layout.dataset(f"ds_{uuid4().hex}")):
        folder.mkdir()
        (folder / "request.json").write_text("{")
        (folder / "upload").write_bytes(b"bytes")
    waiting = settled(layout, f"job_{uuid4().hex}")
    with serving(alone) as server:
        wait_for(lambda: server.http.get(f"/v1/jobs/{waiting}").status_code == 200)


def test_an_upload_whose_job_ends_and_is_forgotten_while_it_is_looked_at_stays(alone, monkeypatch):
    """Between the look at the disk and the question to Redis: its record is on disk by then."""
    layout = Layout(alone.data).create()
    waiting = settled(layout, f"job_{uuid4().hex}")
    tried = threading.Event()

    async def forgotten(_, record: AdoptionRecord) -> None:
        write_atomic(layout.job(record.id) / "record.json", b"{}")
        tried.set()

    monkeypatch.setattr(Adoptions, "_write", forgotten)
    with serving(alone) as server:
        assert tried.wait(20)
        server.http.get("/livez")
    assert (layout.job(waiting) / "upload").read_bytes() == b"bytes"


@pytest.mark.parametrize("error", [FileNotFoundError("it has just gone"), ValueError("nobody thought of that")])
def test_a_sweep_that_fails_once_ends_none_of_what_comes(alone, monkeypatch, error):
    failing = [error]

    def sweeping(layout: Layout) -> list[str]:
        if failing:
            raise failing.pop()
        return sweep(layout)

    monkeypatch.setattr("app.services.dataset_uploads.sweep", sweeping)
    monkeypatch.setattr("app.background._RECOVERY_SECONDS", 0.01)
    monkeypatch.setattr("app.background._RETRY_SECONDS", 0.01)
    with serving(alone) as server:
        wait_for(lambda: not failing)
        part = server.layout.uploads / "ds_dead.1.part"
        part.write_bytes(b"half")
        waiting = settled(server.layout, f"job_{uuid4().hex}")
        wait_for(lambda: not part.exists())
        wait_for(lambda: server.http.get(f"/v1/jobs/{waiting}").status_code == 200)


def test_a_folder_that_is_just_being_filled_stays_when_another_upload_of_its_id_died(layout, monkeypatch):
    (layout.uploads / "ds_same.1.part").write_bytes(b"half")
    live = Upload(layout, "ds_same", repeatable=True, folder=layout.dataset("ds_same"))
    live.write(tiny_zip())

    def write(path: Path, data: bytes) -> None:
        write_atomic(path, data)
        sweep(layout)

    monkeypatch.setattr("app.services.uploads.write_atomic", write)
    about = {"name": "a", "filename": None, "bytes": 1, "sha256": "0", "job": "job_1", "created_at": 0}
    live.settle(UploadRecord.model_validate({"id": "ds_same", **about}))
    live.close()
    assert (layout.dataset("ds_same") / "upload").read_bytes() == tiny_zip()
    assert list(layout.uploads.iterdir()) == []


def test_a_part_that_is_swept_before_it_is_locked_is_made_again(layout, monkeypatch):
    lock, swept = fcntl.flock, []

    def locking(fd: int, how: int) -> None:
        if how == fcntl.LOCK_EX and not swept:
            swept.extend(sweep(layout))
        lock(fd, how)

    monkeypatch.setattr(upload_parts.fcntl, "flock", locking)
    part = layout.uploads / "ds_new.1.part"
    fd = open_part(part)
    assert swept == [part.name]
    assert os.fstat(fd).st_ino == part.stat().st_ino
    assert sweep(layout) == []
    os.close(fd)


def test_what_a_deletion_that_was_cut_off_left_is_swept(layout):
    for place in (layout.datasets / ".ds_x.0123.tmp", layout.jobs / ".job_x.0123.tmp"):
        (place / "data").mkdir(parents=True)
    for kept in (layout.dataset("ds_y"), layout.job("job_y") / ".claim-0.0123.tmp"):
        kept.mkdir(parents=True)
    sweep(layout)
    assert [each.name for each in (*layout.datasets.iterdir(), *layout.jobs.iterdir())] == ["ds_y", "job_y"]
    assert (layout.job("job_y") / ".claim-0.0123.tmp").exists()
