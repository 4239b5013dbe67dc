"""The importer as its own process: what it says, how it ends, and how its result is published."""

import json
import os
import select
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from archives import FASHION_MINI, cats_and_dogs, png, tarred, zipped

from store import datasets
from store.datasets import Dataset, publish
from store.layout import Layout
from store.splits import open_split
from worker.job_process import DONE, REFUSED, STOPPED


def prepared(root: Path, upload: bytes) -> Path:
    """A data directory with an upload and its import job; the job's folder."""
    layout = Layout(root).create()
    layout.dataset("ds_1").mkdir()
    (layout.dataset("ds_1") / "upload").write_bytes(upload)
    layout.job("job_1").mkdir()
    spec = {"kind": "import", "dataset": "ds_1", "name": "mini", "filename": None}
    (layout.job("job_1") / "spec.json").write_text(json.dumps(spec))
    return layout.job("job_1")


def started(run_dir: Path, **env: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "worker.importer", str(run_dir), "--claim", "3"]
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, **env}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=root, env=environment)


def ended(process: subprocess.Popen) -> tuple[int, list[dict], str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, [json.loads(line) for line in out.splitlines()], err.decode()


def many_images() -> bytes:
    image = png(0)
    return zipped({f"{name}/{i}.png": image for name in ("cat", "dog") for i in range(4000)})


def test_an_import_ends_with_its_artifact_which_publish_moves_into_place_once(tmp_path):
    files = {path.name: path.read_bytes() for path in FASHION_MINI.iterdir()}
    run_dir = prepared(tmp_path, tarred(files))
    code, lines, err = ended(started(run_dir, RESNETD_PARENT_PID=str(os.getpid())))
    assert (code, err) == (DONE, "")
    assert lines[-1] == {"type": "result", "data": {"artifact": "claim-3/dataset"}}
    phases = [line["data"]["phase"] for line in lines if line["type"] == "progress"]
    assert phases[0] == "reading"
    assert {"decoding", "writing"} <= set(phases)
    fractions = [line["data"]["fraction"] for line in lines if line["type"] == "progress"]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0

    target, artifact = tmp_path / "datasets" / "ds_1", run_dir / "claim-3" / "dataset"
    for _ in range(2):
        publish(artifact, target)
        dataset = Dataset.read(target)
        assert (dataset.id, dataset.name) == ("ds_1", "mini")
        assert len(open_split(target, dataset, "train")) == 2000
        assert sorted(path.name for path in target.iterdir()) == ["data", "dataset.json"]


@pytest.mark.parametrize("died_after", ["data", "descriptor"])
def test_publish_goes_on_where_it_was_killed(tmp_path, run_import, died_after):
    dataset, artifact = run_import(zipped(cats_and_dogs()))
    target = tmp_path / "target"
    (target).mkdir()
    (target / "upload").write_bytes(b"x")
    (artifact / "data").rename(target / "data")
    if died_after == "descriptor":
        (artifact / "dataset.json").rename(target / "dataset.json")
    publish(artifact, target)
    assert Dataset.read(target) == dataset
    assert len(open_split(target, dataset, "test")) == 4
    assert not (target / "upload").exists()


def test_publish_replaces_what_an_earlier_claim_left_without_descriptor(tmp_path, run_import):
    dataset, artifact = run_import(zipped(cats_and_dogs()))
    target = tmp_path / "target"
    (target / "data").mkdir(parents=True)
    (target / "data" / "old.npy").write_bytes(b"old")
    publish(artifact, target)
    assert not (target / "data" / "old.npy").exists()
    assert len(open_split(target, dataset, "train")) == 16


def test_who_publishes_late_leaves_what_another_published_meanwhile(tmp_path, run_import, monkeypatch):
    """As a supervisor does that stood still and does not know yet that it has lost the job."""
    dataset, artifact = run_import(zipped(cats_and_dogs()))
    target, late = tmp_path / "target", tmp_path / "late"
    shutil.copytree(artifact, late)
    (late / "data" / "late.npy").touch()
    to_disk = datasets.fsync_tree

    def overtaken(folder):
        to_disk(folder)
        if folder == late:
            publish(artifact, target)

    monkeypatch.setattr(datasets, "fsync_tree", overtaken)
    publish(late, target)
    assert not (target / "data" / "late.npy").exists()
    assert len(open_split(target, Dataset.read(target), "train")) == dataset.splits["train"].images


def test_one_publishes_at_a_time(tmp_path, run_import):
    _, artifact = run_import(zipped(cats_and_dogs()))
    target = tmp_path / "target"
    target.mkdir()
    with ThreadPoolExecutor(1) as pool:
        with datasets._locked(target):
            other = pool.submit(publish, artifact, target)
            with pytest.raises(TimeoutError):
                other.result(0.3)
            assert not (target / "data").exists()
        other.result()
    assert (target / "dataset.json").exists()


def test_publish_without_an_artifact_is_an_error(tmp_path):
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "upload").write_bytes(b"kept")
    with pytest.raises(FileNotFoundError):
        publish(tmp_path / "artifact", tmp_path / "target")
    assert (tmp_path / "target" / "upload").exists()


def test_a_refused_upload_ends_with_an_error_line_and_leaves_nothing(tmp_path):
    run_dir = prepared(tmp_path, b"Rar!\x1a\x07\x01\x00")
    code, lines, _ = ended(started(run_dir))
    assert code == REFUSED
    assert lines[-1]["type"] == "error"
    assert lines[-1]["data"]["code"] == "unsupported_archive"
    assert "RAR" in lines[-1]["data"]["message"]
    assert lines[-1]["data"]["hint"]
    assert not (run_dir / "claim-3" / "dataset").exists()


def test_sigterm_stops_an_import_which_leaves_nothing_half_done(tmp_path):
    run_dir = prepared(tmp_path, many_images())
    process = started(run_dir)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    code, lines, _ = ended(process)
    assert code == STOPPED
    assert "result" not in {line["type"] for line in lines}
    assert not (run_dir / "claim-3" / "dataset").exists()
    assert (tmp_path / "datasets" / "ds_1" / "upload").exists()


def test_an_importer_dies_with_the_process_that_started_it(tmp_path):
    run_dir = prepared(tmp_path, many_images())
    program = (
        "import os, subprocess, sys, time\n"
        "env = {**os.environ, 'RESNETD_PARENT_PID': str(os.getpid())}\n"
        "command = [sys.executable, '-m', 'worker.importer', sys.argv[1]]\n"
        "p = subprocess.Popen(command, env=env, stdout=subprocess.PIPE)\n"
        "p.stdout.readline()\n"
        "print(p.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    root = Path(__file__).resolve().parents[2]
    parent = subprocess.Popen([sys.executable, "-c", program, str(run_dir)], stdout=subprocess.PIPE, cwd=root)
    assert parent.stdout is not None
    with parent.stdout:
        importer = os.pidfd_open(int(parent.stdout.readline()))
    try:
        parent.kill()
        parent.wait()
        # The descriptor becomes readable when the importer is gone.
        assert select.select([importer], [], [], 10)[0]
        assert not (run_dir / "claim-1" / "dataset" / "dataset.json").exists()
    finally:
        os.close(importer)


def test_an_importer_whose_parent_was_gone_before_it_started_does_nothing(tmp_path):
    run_dir = prepared(tmp_path, zipped(cats_and_dogs()))
    code, lines, _ = ended(started(run_dir, RESNETD_PARENT_PID=str(os.getppid())))
    assert code == 1
    assert lines == []


def test_the_importer_does_not_import_torch():
    program = "import sys, worker.importer.job; sys.exit('torch' in sys.modules)"
    root = Path(__file__).resolve().parents[2]
    assert subprocess.run([sys.executable, "-c", program], cwd=root, check=False).returncode == 0


def test_an_import_whose_dataset_was_published_before_its_worker_died_says_its_result_again(tmp_path):
    run_dir = prepared(tmp_path, zipped(cats_and_dogs()))
    target = tmp_path / "datasets" / "ds_1"
    assert ended(started(run_dir))[0] == DONE
    publish(run_dir / "claim-3" / "dataset", target)
    assert not (target / "upload").exists()
    code, lines, _ = ended(started(run_dir))
    assert (code, lines[-1]["type"]) == (DONE, "result")
    publish(run_dir / "claim-3" / "dataset", target)
    assert Dataset.read(target).id == "ds_1"


def test_what_killed_imports_left_is_removed_and_nothing_of_a_later_claim(tmp_path):
    """The third claim's process may be late: its job is another one's by now."""
    run_dir = prepared(tmp_path, zipped(cats_and_dogs()))
    left = [run_dir / name for name in ("claim-1/dataset", "claim-2/.dataset.0123.tmp")]
    later = [run_dir / name for name in ("claim-4/dataset", "claim-4/.dataset.4567.tmp")]
    for folder in (*left, *later):
        folder.mkdir(parents=True)
        (folder / "dataset.json").write_bytes(b"half")
    assert ended(started(run_dir))[0] == DONE
    assert [folder.exists() for folder in left] == [False, False]
    assert [folder.exists() for folder in later] == [True, True]


@pytest.mark.parametrize(("spec", "code"), [(None, "no_spec"), ({"kind": "import"}, "bad_spec")])
def test_an_import_without_a_spec_is_refused_with_a_code(tmp_path, spec, code):
    run_dir = prepared(tmp_path, b"")
    (run_dir / "spec.json").unlink()
    if spec is not None:
        (run_dir / "spec.json").write_text(json.dumps(spec))
    status, lines, _ = ended(started(run_dir))
    assert (status, lines[-1]["type"], lines[-1]["data"]["code"]) == (REFUSED, "error", code)
