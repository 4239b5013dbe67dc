"""POST /v1/datasets: several files of a form are one dataset, and what is no archive is refused at once."""

import gzip
import json
import os
import random
import socket
import subprocess
import sys

import pytest
from edge_kit import Server, problem
from running import RESNETD
from samples import IDX, MINI, photo, png, tiny_zip, zip_mini

from store.datasets import UPLOAD, Dataset
from store.files import write_atomic

LABELS = gzip.decompress((MINI / "t10k-labels-idx1-ubyte.gz").read_bytes())
FILES = [*IDX, MINI / "classes.txt"]


def imported(server: Server, accepted: dict) -> Dataset:
    """What the importer's own process makes of an upload."""
    run_dir = server.layout.job(accepted["job"]["id"])
    run_dir.mkdir(parents=True)
    spec = {"kind": "import", "dataset": accepted["id"], "name": accepted["name"]}
    write_atomic(run_dir / "spec.json", json.dumps(spec).encode())
    command = [sys.executable, "-m", "worker.importer", str(run_dir), "--data", str(server.layout.root)]
    ended = subprocess.run(command, capture_output=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stdout
    return Dataset.read(next(run_dir.glob("claim-*/dataset")))


def test_idx_files_of_a_form_by_curl_and_by_the_command_line_are_the_dataset_that_their_archive_is(server, tmp_path):
    url = f"{server.url}/v1/datasets"
    parts = [word for file in FILES for word in ("-F", f"f=@{file}")]
    told = subprocess.run(["curl", "-sS", "-F", "name=fm", *parts, url], capture_output=True, timeout=60, check=True)
    by_curl = json.loads(told.stdout)
    command = [RESNETD, "datasets", "upload", *map(str, FILES), "--no-follow", "--json"]
    said = subprocess.run(
        command, capture_output=True, timeout=60, check=True, env={**os.environ, "RESNETD_SERVER": server.url}
    )
    by_hand = json.loads(said.stdout)
    archive = server.http.post(url, content=zip_mini(tmp_path / "mini.zip").read_bytes()).json()
    assert (by_curl["name"], by_hand["name"]) == ("fm", "fashion-mnist-mini")
    uploads = [(server.layout.dataset(each["id"]) / UPLOAD).read_bytes() for each in (by_curl, by_hand)]
    assert uploads[0] == uploads[1]
    assert server.http.get(f"/v1/datasets/{by_curl['id']}").json()["filename"] is None
    found = [imported(server, each) for each in (by_curl, archive)]
    assert found[0].source.format == "idx"
    assert (found[0].digest, found[0].classes) == (found[1].digest, found[1].classes)
    assert {name: split.images for name, split in found[0].splits.items()} == {"train": 2000, "test": 1000}
    assert found[0].report.skipped == ()


def test_the_same_files_under_one_idempotency_key_are_one_dataset(server):
    asked = {"files": [("f", (file.name, file.read_bytes())) for file in IDX], "headers": {"Idempotency-Key": "idx"}}
    first, again = (server.http.post("/v1/datasets", **asked) for _ in range(2))
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json() == again.json()
    asked["files"] = asked["files"][:2]
    problem(server.http.post("/v1/datasets", **asked), 422, "idempotency_conflict")


@pytest.mark.parametrize("form", [False, True])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (png(photo()), "single image"),
        (b"Rar!\x1a\x07\x01\x00" + bytes(9000), "RAR"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(100), "7z"),
        (b"file,label\n" * 1000, "text"),
        (b"no archive", "text"),
        (LABELS, "single IDX file"),
        (IDX[0].read_bytes(), "single IDX file"),
        (gzip.compress(b"no tar"), "text"),
        (random.Random(0).randbytes(20_000), "neither a zip nor a tar"),
    ],
    ids=["png", "rar", "7z", "manifest", "text", "labels", "images.gz", "text.gz", "noise"],
)
def test_what_is_no_archive_is_refused_at_once_and_leaves_nothing(server, form, content, words):
    before = len(list(server.layout.datasets.iterdir()))
    sent = {"files": {"f": ("some.zip", content)}} if form else {"content": content}
    body = problem(server.http.post("/v1/datasets", **sent), 422, "unsupported_archive")
    assert words in str(body["detail"])
    assert "curl -F" in str(body["hint"]) if "IDX" in words else "zip or tar" in str(body["hint"])
    assert list(server.layout.uploads.iterdir()) == []
    assert len(list(server.layout.datasets.iterdir())) == before


def test_a_body_that_is_no_archive_is_refused_before_the_rest_of_it_has_come(server):
    with socket.create_connection(server.address, timeout=20) as connection:
        connection.sendall(b"PUT /v1/datasets HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4000000\r\n\r\n")
        connection.sendall(b"text\n" * 2000)
        assert connection.recv(4096).startswith(b"HTTP/1.1 422")
    assert list(server.layout.uploads.iterdir()) == []


RAR = b"Rar!\x1a\x07\x01\x00" + bytes(9000)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([RAR, RAR], "'0': RAR"),
        ([b"%PDF-1.7\n" * 2, b"%PDF-1.7\n" * 3], "'0': PDF"),
        ([png(photo()), png(photo(size=(9, 9)))], "'0': a single image"),
        ([LABELS, RAR], "'1': RAR"),
        ([b"file,label\n", b"cat\ndog\n"], "'0': the file is text"),
        ([random.Random(n).randbytes(20_000) for n in range(2)], "neither a zip nor a tar"),
    ],
    ids=["rar", "pdf", "png", "labels and rar", "text", "noise"],
)
def test_several_files_that_are_no_dataset_together_are_refused_at_once_by_name(server, files, words):
    sent = [("f", (str(number), content)) for number, content in enumerate(files)]
    body = problem(server.http.post("/v1/datasets", files=sent), 422, "unsupported_archive")
    assert words in str(body["detail"])
    assert list(server.layout.uploads.iterdir()) == []


@pytest.mark.parametrize("before", [b"", LABELS], ids=["alone", "behind labels"])
def test_a_form_with_a_foreign_file_is_refused_before_the_rest_of_it_has_come(server, before):
    part = b'--x\r\nContent-Disposition: form-data; name="f"; filename="%s"\r\n\r\n'
    begun = (part % b"labels" + before + b"\r\n" if before else b"") + part % b"some.rar" + RAR
    head = b"POST /v1/datasets HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    with socket.create_connection(server.address, timeout=60) as connection:
        connection.sendall(head + b"Content-Length: 4000000\r\n\r\n" + begun)
        assert connection.recv(4096).startswith(b"HTTP/1.1 422")
    assert list(server.layout.uploads.iterdir()) == []


def test_names_of_classes_may_begin_like_an_image(server):
    files = [("f", ("labels", LABELS)), ("f", ("classes.txt", b"BMW\nAudi\n"))]
    assert server.http.post("/v1/datasets", files=files).status_code == 202


def test_files_that_cannot_be_one_archive_are_refused_in_words(server, settings):
    def refused(*files: tuple[str, bytes], code: str, status: int = 422) -> str:
        body = problem(server.http.post("/v1/datasets", files=[("f", each) for each in files]), status, code)
        assert list(server.layout.uploads.iterdir()) == []
        return str(body["detail"])

    labels, archive = ("labels", LABELS), ("a.zip", tiny_zip())
    assert "'labels'" in refused(labels, labels, code="duplicate_file")
    assert "archive" in refused(labels, archive, code="too_many_files")
    assert "archive" in refused(archive, labels, code="too_many_files")
    assert "100" in refused(*((f"labels{n}", LABELS) for n in range(101)), code="too_many_files")
    assert "'C:x'" in refused(labels, ("C:x", LABELS), code="invalid_filename")
    assert "'b'" in refused(labels, ("b", b""), code="empty_upload")
    assert refused(("a", b""), code="empty_upload")
    half = LABELS + bytes(settings.max_dataset_bytes // 2)
    refused(("a", half), ("b", half), ("c", half), code="body_too_large", status=413)


def test_a_form_that_ends_within_a_file_leaves_nothing(server):
    cut = b'--x\r\nContent-Disposition: form-data; name="f"; filename="a"\r\n\r\n' + LABELS * 10
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    problem(server.http.post("/v1/datasets", content=cut, headers=headers), 400, "invalid_multipart")
    assert list(server.layout.uploads.iterdir()) == []


def test_a_form_file_is_a_name_and_no_path(server: Server):
    files = [("f", (f"../../{name}", LABELS)) for name in ("a", "ä")]
    accepted = server.http.post("/v1/datasets", files=files).json()
    upload = server.layout.dataset(accepted["id"]) / UPLOAD
    listed = subprocess.run([sys.executable, "-m", "zipfile", "-t", str(upload)], capture_output=True, check=True)
    assert b"Done" in listed.stdout
    content = upload.read_bytes()
    assert b"../" not in content
    assert "ä".encode() in content
