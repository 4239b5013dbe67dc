"""Uploads by the client: whole files, under their names, sent again whole."""

from pathlib import Path
from typing import Any

import pytest
from scripted_server import RESULTS, away, broken, json_answer, server

from resnetd.client import _called
from resnetd.errors import Problem


def test_uploads_have_terms_as_other_jobs_have(tmp_path):
    files = [tmp_path / name for name in ("a.zip", "b.zip")]
    for file in files:
        file.write_bytes(b"PK")
    made = json_answer({"id": "ds_1", "job": {"id": "job_1"}}, 202)
    terms: dict[str, Any] = {"priority": "high", "max_seconds": 60}
    with server(made, made, made) as (client, told):
        client.upload_dataset(files[0], name="pets", **terms)
        client.upload_dataset(files, name="pets", **terms)
        client.import_model(files[0], "pets", **terms)
    assert [path for _, path, *_ in told.requests] == [
        *["/v1/datasets?name=pets&priority=high&max_seconds=60"] * 2,
        "/v1/models",
    ]
    for name, value in terms.items():
        assert f'name="{name}"\r\n\r\n{value}\r\n'.encode() in told.requests[2][3]


def test_an_upload_streams_the_file_under_its_own_name(tmp_path):
    file = tmp_path / "pets.tar.gz"
    file.write_bytes(bytes(range(256)) * 10_000)
    sent: list[int] = []
    with server(json_answer({"id": "ds_1", "job": {"id": "job_1"}}, 202)) as (client, told):
        client.upload_dataset(file, on_bytes=sent.append)
    method, path, headers, body = told.requests[0]
    assert (method, path) == ("POST", "/v1/datasets?name=pets")
    assert headers["content-length"] == str(len(body))
    assert "transfer-encoding" not in headers
    assert body == file.read_bytes()
    assert sum(sent) == len(body)
    assert len(sent) == 3


def test_several_files_are_sent_as_one_form_called_like_their_folder(tmp_path):
    folder = tmp_path / "fashion.v2"
    folder.mkdir()
    files = [folder / "train-images", folder / "train-labels"]
    for number, file in enumerate(files):
        file.write_bytes(bytes([number]) * 1_500_000)
    sent: list[int] = []
    with server(json_answer({"id": "ds_1", "job": {"id": "job_1"}}, 202)) as (client, told):
        client.upload_dataset(files, on_bytes=sent.append)
    method, path, headers, body = told.requests[0]
    assert (method, path) == ("POST", "/v1/datasets?name=fashion.v2")
    assert headers["content-type"].startswith("multipart/form-data")
    assert headers["content-length"] == str(len(body))
    assert all(b'filename="%s"' % file.name.encode() in body and file.read_bytes() in body for file in files)
    assert (sum(sent), max(sent) < 1_000_000) == (3_000_000, True)


@pytest.mark.parametrize("kind", ["dataset", "dataset of several files", "model"])
def test_an_upload_that_is_refused_for_a_moment_is_sent_again_whole_under_the_same_key(tmp_path, kind):
    files = [tmp_path / name for name in ("a.zip", "b.zip")]
    for file in files:
        file.write_bytes(bytes(range(256)) * 10_000)
    sent: list[int] = []
    made = json_answer({"id": "ds_1", "job": {"id": "job_1"}}, 202)
    with server(away, broken, made, away) as (client, told):

        def upload(**more):
            if kind == "model":
                return client.import_model(files[0], "mine", **more)
            return client.upload_dataset(files[0] if kind == "dataset" else files, **more)

        assert upload(on_bytes=sent.append)["id"] == "ds_1"
        client._patience = -1.0
        with pytest.raises(Problem) as refused:
            upload(idempotency_key="mine")
    keys = [headers["idempotency-key"] for _, _, headers, _ in told.requests]
    assert (len(set(keys[:3])), keys[3], refused.value.idempotency_key) == (1, "mine", "mine")
    assert len({len(body) for *_, body in told.requests}) == 1
    assert all(
        body.count(files[0].read_bytes()) == len(files) - (kind != "dataset of several files")
        for *_, body in told.requests
    )
    assert sum(sent) == 2_560_000 * (2 if kind == "dataset of several files" else 1)


def test_files_that_are_links_are_called_like_the_folder_they_were_named_in(tmp_path, monkeypatch):
    for name in ("blobs", "fashion/inner"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("images", "labels"):
        (tmp_path / "blobs" / name).write_bytes(b"data")
        (tmp_path / "fashion" / name).symlink_to(tmp_path / "blobs" / name)
    accepted = json_answer({"id": "ds_1", "job": {"id": "job_1"}}, 202)
    with server(accepted, accepted, accepted) as (client, told):
        client.upload_dataset([tmp_path / "fashion" / "images", tmp_path / "fashion" / "labels"])
        monkeypatch.chdir(tmp_path / "fashion")
        client.upload_dataset([Path("images"), Path("labels")])
        monkeypatch.chdir("inner")
        client.upload_dataset([Path("../images"), Path("../labels")])
    assert [path for _, path, _, _ in told.requests] == ["/v1/datasets?name=fashion"] * 3


def test_a_file_may_be_named_by_text_and_one_need_not_stand_in_a_list(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("cat.jpg", "dog.jpg", "pets.zip", "model.pth"):
        Path(name).write_bytes(name.encode())
    made, found = json_answer({"id": "ds_1", "job": {"id": "job_1"}}, 202), json_answer(RESULTS)
    with server(*[found] * 4, made, made, made, found) as (client, told):
        for images in ("cat.jpg", Path("cat.jpg"), ["cat.jpg", Path("dog.jpg"), b"picture"], b"picture"):
            client.classify(images)
        for files in ("pets.zip", ["cat.jpg", "dog.jpg"]):
            client.upload_dataset(files)
        client.import_model("model.pth", "pets")
        client.explain("cat.jpg", model="pets")
    bodies = [body for *_, body in told.requests]
    named = [[n for n in ("cat.jpg", "dog.jpg", "image-0", "image-2") if f'"{n}"'.encode() in body] for body in bodies]
    assert named[:4] == [["cat.jpg"], ["cat.jpg"], ["cat.jpg", "dog.jpg", "image-2"], ["image-0"]]
    assert (bodies[4], named[5], bodies[7]) == (b"pets.zip", ["cat.jpg", "dog.jpg"], b"cat.jpg")
    assert told.requests[4][1] == "/v1/datasets?name=pets"
    assert b'filename="model.pth"' in bodies[6]


def test_a_file_without_a_folder_or_a_stem_still_gives_a_name():
    assert _called([Path("/images.gz"), Path("/labels.gz")]) == "images"
    assert _called([Path("folder/.zip")]) == ".zip"


def test_an_upload_of_no_files_says_so_and_sends_nothing():
    with server() as (client, told), pytest.raises(ValueError, match="one file at least"):
        client.upload_dataset([])
    assert told.requests == []
