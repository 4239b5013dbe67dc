"""Files and folders that are there after a power cut, and that only their owner reads."""

import os
import shutil
import stat
from pathlib import Path

import pytest

from store import files
from store.files import make_dir, publish_dir, remove_tree, write_atomic
from store.keys import create_key, revoke_key
from store.layout import Layout


@pytest.fixture
def synced(monkeypatch) -> list[Path]:
    """The folders and files that are synced from now on, in order."""
    found: list[Path] = []
    sync = os.fsync

    def noting(fd: int) -> None:
        found.append(Path(f"/proc/self/fd/{fd}").readlink())
        sync(fd)

    monkeypatch.setattr(files.os, "fsync", noting)
    return found


def test_a_new_folder_is_durable_as_are_those_that_lacked_above_it(tmp_path, synced):
    make_dir(tmp_path / "a" / "b" / "c")
    assert synced == [tmp_path, tmp_path / "a", tmp_path / "a" / "b"]
    synced.clear()
    make_dir(tmp_path / "a" / "b" / "d")
    make_dir(tmp_path / "a" / "b" / "d")
    assert synced == [tmp_path / "a" / "b"]


def test_a_file_where_a_folder_should_be_is_an_error(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(OSError, match="exists"):
        make_dir(tmp_path / "a" / "b")


def test_a_folder_is_gone_for_good_before_what_it_held_is_removed(tmp_path, synced, monkeypatch):
    (tmp_path / "doomed" / "inner").mkdir(parents=True)
    remove = shutil.rmtree

    def removing(folder: Path, **options: bool) -> None:
        assert synced == [tmp_path]
        assert not (tmp_path / "doomed").exists()
        remove(folder, **options)

    monkeypatch.setattr(files.shutil, "rmtree", removing)
    remove_tree(tmp_path / "doomed")
    assert list(tmp_path.iterdir()) == []


def test_the_folders_that_acknowledged_things_lie_in_are_durable_when_the_data_directory_is_made(tmp_path, synced):
    layout = Layout(tmp_path / "new" / "data").create()
    assert {tmp_path, tmp_path / "new", layout.root} <= set(synced)
    synced.clear()
    source = tmp_path / "made"
    source.mkdir()
    publish_dir(source, layout.models / "toy" / "1")
    assert {layout.models, layout.models / "toy"} <= set(synced)


def test_what_is_written_is_its_owners_alone_whatever_the_umask(tmp_path):
    before = os.umask(0o022)
    try:
        write_atomic(tmp_path / "file", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600


def test_the_keys_are_never_readable_for_others_nor_while_they_are_written(tmp_path, monkeypatch):
    layout, seen = Layout(tmp_path).create(), []
    replace = Path.replace

    def replacing(source: Path, target: Path) -> Path:
        seen.append(stat.S_IMODE(source.stat().st_mode))
        return replace(source, target)

    monkeypatch.setattr(Path, "replace", replacing)
    secret = create_key(layout, "admin")
    revoke_key(layout, secret.split("_")[1])
    assert seen == [0o600, 0o600]
    assert stat.S_IMODE(layout.keys.stat().st_mode) == 0o600
