"""A compressed tar is decompressed a few times, however many files it holds, and an import tells that it gets on."""

import gzip
import random
from collections.abc import Callable

import pytest
from archives import FASHION_MINI, Files, cats_and_dogs, png, tarred

from worker.job_process import JobRefused, JobStopped, Stop
from worker.signs_of_life import SignsOfLife

MIB = 2**20


def noise(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


def mnist_family(fillers: int = 56) -> Files:
    """IDX files of train and test among others, as many as are looked at whatever their names."""
    files = {path.name.removesuffix(".gz"): path.read_bytes() for path in FASHION_MINI.iterdir()}
    files = {name: gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data for name, data in files.items()}
    others = {f"{n:02d}.bin": noise(n, MIB // 4) for n in range(fillers)}
    return dict(sorted((files | others).items()))


def with_manifests(names: list[str], *, wide: int = 0) -> Files:
    """A large file, images in no class folders, and at the end the tables."""
    files = {f"pics/{n}.png": png(n) for n in range(30)}
    tables = {
        name: "\n".join(
            ["image,label", *(f"pics/{n}.png,{'cat' if n % 2 else 'dog'}" for n in range(at, 30, len(names)))]
        ).encode()
        for at, name in enumerate(names)
    }
    return {f"pics/{n}.raw": noise(n, MIB) for n in range(8)} | files | tables


@pytest.fixture
def decompressed(monkeypatch) -> Callable[[], int]:
    """How many bytes were decompressed with gzip, going back included; a second call counts from the first."""
    read = gzip._GzipReader.read
    counted = 0

    def counting(self, size=-1):
        nonlocal counted
        data = read(self, size)
        counted += len(data)
        return data

    def taken() -> int:
        nonlocal counted
        count, counted = counted, 0
        return count

    monkeypatch.setattr(gzip._GzipReader, "read", counting)
    return taken


ARCHIVES = {
    "IDX": mnist_family(),
    "class folders": cats_and_dogs(each=30) | {"readme.bin": noise(0, 8 * MIB)},
    "a manifest": with_manifests(["manifest.csv"]),
    "manifests": with_manifests(["train.csv", "val.csv", "test.csv"]),
    "a manifest of any name": with_manifests(["animals.csv"]),
}


@pytest.mark.parametrize("files", ARCHIVES.values(), ids=ARCHIVES)
def test_a_tar_is_decompressed_at_most_once_for_each_kind_of_thing_that_is_read(run_import, decompressed, files):
    """To plan; to look for IDX files; for manifests, or class names, or labels; for images."""
    archive = tarred(files, "gz")
    size = len(gzip.decompress(archive))
    decompressed()
    run_import(archive)
    assert decompressed() < 4.1 * size


def test_to_look_at_files_that_are_gzipped_themselves_is_no_way_back(run_import, decompressed):
    files = {path.name: path.read_bytes() for path in FASHION_MINI.iterdir()}
    archive = tarred(files | {f"{n:02d}.bin": noise(n, MIB // 4) for n in range(56)}, "gz")
    size = len(gzip.decompress(archive)) + sum(len(gzip.decompress(d)) for d in files.values() if d[:2] == b"\x1f\x8b")
    decompressed()
    run_import(archive)
    assert decompressed() < 4.1 * size


@pytest.mark.parametrize("files", [ARCHIVES["IDX"], ARCHIVES["a manifest"]], ids=["IDX", "a manifest"])
def test_whatever_is_skipped_or_read_again_the_import_tells_that_it_gets_on(
    run_import, decompressed, monkeypatch, files
):
    archive = tarred(files, "gz")
    silent = []
    monkeypatch.setattr(SignsOfLife, "moved", lambda self: silent.append(decompressed()))
    run_import(archive)
    assert max(silent) < MIB


def test_an_import_can_be_stopped_while_it_skips(run_import, decompressed, monkeypatch):
    """A single file that is passed over, of which a stop in between saves the rest."""
    archive = tarred({"a.raw": noise(0, 32 * MIB)} | cats_and_dogs(), "gz")
    looked = iter(range(10**9))
    monkeypatch.setattr(Stop, "requested", property(lambda self: next(looked) > 20))
    decompressed()
    with pytest.raises(JobStopped):
        run_import(archive)
    assert decompressed() < MIB


def test_the_same_manifests_give_the_same_dataset_wherever_they_lie(run_import):
    """An image that two of them name is of the first one's split, by name and not by place."""
    rows = b"image,label\n" + b"".join(b"pics/%d.png,%s\n" % (n, b"cat" if n % 2 else b"dog") for n in range(30))
    files = {f"pics/{n}.png": png(n) for n in range(30)}
    test = b"\n".join(rows.splitlines()[:9])
    one, _ = run_import(tarred({"train.csv": rows} | files | {"test.csv": test}))
    two, _ = run_import(tarred({"test.csv": test} | files | {"train.csv": rows}))
    assert one.digest == two.digest
    assert {name: split.images for name, split in one.splits.items()} == {"train": 22, "test": 8}


def test_an_unusual_table_that_breaks_after_it_has_labelled_an_image_is_a_bad_manifest(run_import):
    files = {f"pics/{n}.png": png(n) for n in range(8)}
    rows = [b'{"image": "pics/%d.png", "label": "%s"}' % (n, b"cat" if n % 2 else b"dog") for n in range(8)]
    with pytest.raises(JobRefused) as caught:
        run_import(tarred(files | {"animals.jsonl": b"\n".join([*rows, b"{"])}))
    assert caught.value.code == "bad_manifest"
