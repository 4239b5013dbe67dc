"""The catalog of models: immutable versions, aliases, several processes at once."""

import fcntl
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from serving_toys import make_artifact

from models.catalog import Catalog, ModelNotFound

PUBLISH = """
import sys
from pathlib import Path
from models.catalog import Catalog
root, source, *jobs = sys.argv[1:]
for job in jobs:
    print(job, Catalog(Path(root)).publish("toy", Path(source) / job, job))
"""


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog(tmp_path / "models")


def artifact(tmp_path: Path, job: str) -> Path:
    return make_artifact(tmp_path / "artifacts" / job, job=job, network=False)


def test_versions_count_up_from_one_and_the_artifact_stays(catalog: Catalog, tmp_path: Path) -> None:
    first, second = artifact(tmp_path, "job_a"), artifact(tmp_path, "job_b")
    assert [catalog.publish("toy", first, "job_a"), catalog.publish("toy", second, "job_b")] == [1, 2]
    assert catalog.versions("toy") == [1, 2]
    assert catalog.names() == ["toy"]
    assert catalog.manifest("toy", 2).lineage.job == "job_b"
    assert (first / "model.json").read_bytes() == (catalog.folder("toy", 1) / "model.json").read_bytes()


def test_a_job_publishes_once_even_when_its_artifact_is_gone(catalog: Catalog, tmp_path: Path) -> None:
    source = artifact(tmp_path, "job_a")
    assert catalog.publish("toy", source, "job_a") == 1
    for file in source.iterdir():
        file.unlink()
    assert Catalog(catalog.root).publish("toy", source, "job_a") == 1
    assert catalog.versions("toy") == [1]


def test_processes_that_publish_at_once_get_versions_of_their_own(catalog: Catalog, tmp_path: Path) -> None:
    jobs = [f"job_{i}" for i in range(9)]
    for job in jobs:
        artifact(tmp_path, job)
    shares = (jobs[:5], jobs[4:], jobs[::2])  # some jobs are published by several
    running = [
        subprocess.Popen(
            [sys.executable, "-c", PUBLISH, catalog.root, tmp_path / "artifacts", *share],
            stdout=subprocess.PIPE,
            text=True,
        )
        for share in shares
    ]
    told = [line.split() for process in running for line in process.communicate()[0].splitlines()]
    assert [process.returncode for process in running] == [0, 0, 0]
    assert catalog.versions("toy") == list(range(1, 10))
    assert {catalog.manifest("toy", int(version)).lineage.job for _, version in told} == set(jobs)
    assert all(catalog.manifest("toy", int(version)).lineage.job == job for job, version in told)


def test_an_incomplete_artifact_or_another_jobs_is_refused(catalog: Catalog, tmp_path: Path) -> None:
    source = artifact(tmp_path, "job_a")
    with pytest.raises(ValueError, match="made by job job_a"):
        catalog.publish("toy", source, "job_b")
    (source / "weights.safetensors").unlink()
    with pytest.raises(ValueError, match=r"lacks weights\.safetensors"):
        catalog.publish("toy", source, "job_a")
    assert catalog.versions("toy") == []
    assert catalog.names() == []


def test_what_a_killed_publisher_left_is_no_version_and_is_swept(catalog: Catalog, tmp_path: Path) -> None:
    left = catalog.root / "toy" / ".0123.tmp"
    left.mkdir(parents=True)
    assert catalog.versions("toy") == []
    assert catalog.publish("toy", artifact(tmp_path, "job_a"), "job_a") == 1
    assert not left.exists()


def test_a_sweep_removes_what_killed_publishers_left_and_nothing_of_who_publishes_now(catalog: Catalog) -> None:
    idle, busy = (catalog.root / name / ".0123.tmp" for name in ("idle", "busy"))
    for left in (idle, busy):
        left.mkdir(parents=True)
    with (catalog.root / "busy" / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        catalog.sweep()
    assert (idle.exists(), busy.exists()) == (False, True)


def test_a_reference_is_a_name_a_version_or_an_alias(catalog: Catalog, tmp_path: Path) -> None:
    for job in ("job_a", "job_b", "job_c"):
        catalog.publish("toy", artifact(tmp_path, job), job)
    assert catalog.resolve("toy") == ("toy", 3)  # no alias: the newest
    assert catalog.resolve("toy@production") == ("toy", 3)
    catalog.set_alias("toy", "production", 1)
    catalog.set_alias("toy", "canary", 2)
    assert catalog.resolve("toy") == ("toy", 1)
    assert catalog.resolve("toy@2") == ("toy", 2)
    assert catalog.resolve("toy@canary") == ("toy", 2)
    assert Catalog(catalog.root).aliases("toy") == {"production": 1, "canary": 2}


@pytest.mark.parametrize(
    "ref",
    ["", "@", "toy@", "toy@9", "toy@0", "toy@01", "toy@nightly", "other", "../toy", "toy/1", "TOY", "toy@../1", "."],
)
def test_what_is_not_there_is_not_found_and_the_hint_says_what_is(catalog: Catalog, tmp_path: Path, ref: str) -> None:
    catalog.publish("toy", artifact(tmp_path, "job_a"), "job_a")
    with pytest.raises(ModelNotFound) as refused:
        catalog.resolve(ref)
    assert "toy" in refused.value.hint


@pytest.mark.parametrize("name", ["", "..", "a/b", "/etc", "Übung", "x" * 64, ".hidden", "a\n"])
def test_a_name_that_could_be_a_path_is_refused(catalog: Catalog, tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="a model's name is"):
        catalog.publish(name, artifact(tmp_path, "job_a"), "job_a")
    assert not catalog.root.exists()


def test_an_alias_points_to_what_exists_and_is_no_number(catalog: Catalog, tmp_path: Path) -> None:
    catalog.publish("toy", artifact(tmp_path, "job_a"), "job_a")
    with pytest.raises(ModelNotFound):
        catalog.set_alias("toy", "production", 2)
    with pytest.raises(ValueError, match="not a number"):
        catalog.set_alias("toy", "3", 1)
    assert catalog.aliases("toy") == {}


def test_an_alias_of_a_version_that_was_published_late_does_not_undo_what_came_since(
    catalog: Catalog, tmp_path: Path
) -> None:
    for job in ("job_a", "job_b"):
        catalog.publish("toy", artifact(tmp_path, job), job)
    catalog.advance_alias("toy", "production", 2)
    catalog.advance_alias("toy", "production", 1)
    assert catalog.aliases("toy") == {"production": 2}


def test_an_alias_that_moves_while_a_publishing_waits_for_its_turn_is_not_moved_back(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for job in ("job_a", "job_b", "job_c"):
        catalog.publish("toy", artifact(tmp_path, job), job)
    catalog.set_alias("toy", "production", 1)
    waits, lock = threading.Event(), Catalog._lock

    def tell(*arguments: object, **options: object) -> object:
        waits.set()
        return lock(*arguments, **options)

    late = threading.Thread(target=Catalog(catalog.root).advance_alias, args=("toy", "production", 2))
    with catalog._lock("toy"):
        monkeypatch.setattr(Catalog, "_lock", tell)
        late.start()
        assert waits.wait(10)
        document = catalog._document("toy")
        moved = document.aliases["production"].moved(
            version=3, canary=None, shadow=None, at=datetime.now(UTC), by="set"
        )
        document.put("production", moved).write(catalog.root / "toy")
    late.join()
    assert catalog.aliases("toy") == {"production": 3}


def test_starters_are_seeded_once_and_what_people_did_since_is_left_alone(catalog: Catalog, tmp_path: Path) -> None:
    starters = tmp_path / "starters"
    make_artifact(starters / "toy", job="job_starter", network=False)
    (starters / "toy" / "events.jsonl").write_text("{}\n")
    assert catalog.seed(starters) == ["toy"]
    assert catalog.resolve("toy") == ("toy", 1)
    assert (catalog.folder("toy", 1) / "events.jsonl").is_file()
    catalog.publish("toy", artifact(tmp_path, "job_b"), "job_b")
    catalog.set_alias("toy", "production", 2)
    assert catalog.seed(starters) == []
    assert catalog.resolve("toy") == ("toy", 2)


def test_a_starter_that_was_deleted_does_not_come_back(catalog: Catalog, tmp_path: Path) -> None:
    source = make_artifact(tmp_path / "starters" / "toy", job="job_starter", network=False)
    catalog.seed(source.parent)
    catalog.delete_alias("toy", "production")
    catalog.delete("toy", 1)
    assert Catalog(catalog.root).seed(source.parent) == []
    assert catalog.versions("toy") == []


def test_a_version_is_gone_for_good_before_its_files_are_removed(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a new model's folder is there for good before its first version is."""
    synced: list[Path] = []
    monkeypatch.setattr("models.catalog.fsync_dir", synced.append)
    monkeypatch.setattr("store.files.fsync_dir", synced.append)
    catalog.publish("toy", artifact(tmp_path, "job_a"), "job_a")
    assert synced.index(catalog.root) < synced.index(catalog.root / "toy")
    synced.clear()

    def removing(folder: Path) -> None:
        assert synced[-1] == catalog.root / "toy"
        assert catalog.versions("toy") == []

    monkeypatch.setattr("models.catalog.shutil.rmtree", removing)
    catalog.delete("toy", 1)


def test_a_seeding_that_was_killed_before_its_alias_is_finished_by_the_next(catalog: Catalog, tmp_path: Path) -> None:
    source = make_artifact(tmp_path / "starters" / "toy", job="job_starter", network=False)
    catalog.publish("toy", source, "job_starter")
    catalog.seed(source.parent)
    assert catalog.aliases("toy") == {"production": 1}
