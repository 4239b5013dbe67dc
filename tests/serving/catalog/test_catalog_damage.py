"""The catalog on a full disk, and beside a version that cannot be read."""

import errno
import shutil
from pathlib import Path

import pytest

from benchmarks.manifests import lineage, write_hollow
from models.catalog import Catalog
from models.manifest import MANIFEST, ModelDamagedError
from worker.outcome import Ending, own_failure


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog(tmp_path / "models")


def artifact(tmp_path: Path, job: str) -> Path:
    return write_hollow(tmp_path / job, lineage(job, recipe="toy"), classes=("cat", "dog"))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up_while_a_model_is_published_is_called_full_and_nothing_is_left(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    source, copy, copied = artifact(tmp_path, "job_a"), shutil.copyfile, []

    def full(source: Path, target: Path, **options: bool) -> Path:
        if copied:
            raise OSError(code, "no more")
        copied.append(target)
        return copy(source, target, **options)

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copyfile", full)
        with pytest.raises(OSError, match="no more") as failed:
            catalog.publish("toy", source, "job_a")
    outcome = own_failure(failed.value)
    assert (outcome.ending, outcome.error and outcome.error.code) == (Ending.FAILED, "disk_full")
    assert [each.name for each in (catalog.root / "toy").iterdir()] == [".lock"]
    assert catalog.publish("toy", source, "job_a") == 1


def test_a_version_that_cannot_be_read_is_called_damaged_and_stops_nobody_from_publishing(
    catalog: Catalog, tmp_path: Path
) -> None:
    assert catalog.publish("toy", artifact(tmp_path, "job_a"), "job_a") == 1
    assert catalog.publish("toy", artifact(tmp_path, "job_b"), "job_b") == 2
    (catalog.folder("toy", 1) / MANIFEST).write_text('{"format": 1, ')
    catalog = Catalog(catalog.root)
    with pytest.raises(ModelDamagedError, match=r"the model\.json of toy@1 is damaged"):
        catalog.manifest("toy", 1)
    assert (catalog.made_by("toy", "job_a"), catalog.made_by("toy", "job_b")) == (None, 2)
    assert catalog.publish("toy", artifact(tmp_path, "job_c"), "job_c") == 3
    catalog.delete("toy", 1)
    assert catalog.versions("toy") == [2, 3]
