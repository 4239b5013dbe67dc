"""What can be uploaded, and that the same files give the same dataset."""

import gzip
import io
import json
import struct

import numpy as np
import pytest
from archives import FASHION_MINI, LIMITS, cats_and_dogs, of_powershell, png, split_folders, tarred, zipped

from models.images import decode, pixels
from store.dataset_writer import split_by_content
from store.splits import open_split
from worker.job_process import JobRefused


def refused(run_import, data: bytes, **limits) -> JobRefused:
    with pytest.raises(JobRefused) as caught:
        run_import(data, LIMITS if not limits else LIMITS.__class__(**{**LIMITS.__dict__, **limits}))
    assert caught.value.hint
    return caught.value


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def idx_files(train: int = 6, test: int = 4) -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    files = {}
    for name, count in (("train", train), ("t10k", test)):
        files[f"{name}-images-idx3-ubyte"] = idx(rng.integers(0, 256, (count, 5, 4), dtype=np.uint8))
        files[f"{name}-labels-idx1-ubyte"] = idx(np.arange(count, dtype=np.uint8) % 2)
    return files


def test_split_folders_become_the_splits_and_pixels_stay_exact(run_import):
    files = split_folders()
    dataset, folder = run_import(zipped(files))
    assert dataset.classes == ("cat", "dog")
    assert {name: split.per_class for name, split in dataset.splits.items()} == {"train": (4, 4), "test": (2, 2)}
    assert dataset.image.uniform
    assert (dataset.image.height, dataset.image.width, dataset.image.channels) == (8, 8, 3)
    assert dataset.image.sizes == {"8x8": 12}
    assert dataset.image.modes == {"RGB": 12}
    test = open_split(folder, dataset, "test")
    assert test.labels.tolist() == [0, 0, 1, 1]
    assert test.pixels is not None
    expected = [files[f"test/{name}/{i}.png"] for name in ("cat", "dog") for i in range(2)]
    assert np.array_equal(test.pixels, [pixels(decode(data, max_pixels=64).image) for data in expected])


def test_images_of_different_sizes_are_kept_as_the_files_they_were(run_import):
    files = split_folders() | {"train/cat/wide.png": png(7, size=(20, 8))}
    dataset, folder = run_import(zipped(files))
    train = open_split(folder, dataset, "train")
    assert not dataset.image.uniform
    assert train.pixels is None
    ordered = sorted(name for name in files if name.startswith("train/"))
    assert [train.encoded(i) for i in range(len(train))] == [files[name] for name in ordered]
    assert not list(folder.glob("data/.*"))


@pytest.mark.parametrize("compression", ["", "gz", "bz2", "xz"])
@pytest.mark.parametrize("mixed_sizes", [False, True])
def test_zip_and_tar_of_the_same_files_give_the_same_digest_and_data(run_import, compression, mixed_sizes):
    files = cats_and_dogs() | ({"cat/x.png": png(1, size=(3, 9))} if mixed_sizes else {})
    shuffled = dict(sorted(files.items(), key=lambda item: item[1]))
    first, one = run_import(zipped(files))
    second, two = run_import(tarred({f"./wrapper/{name}": data for name, data in shuffled.items()}, compression))
    assert first.digest == second.digest
    for path in (one / "data").iterdir():
        assert path.read_bytes() == (two / "data" / path.name).read_bytes()


def test_a_zip_of_windows_powershell_is_read_as_any_other(run_import):
    files = split_folders()
    made, _ = run_import(of_powershell(files))
    assert made.digest == run_import(zipped(files))[0].digest
    assert made.report.skipped == ()


def test_the_digest_changes_with_a_label(run_import):
    files = split_folders()
    files["train/dog/0.png"], files["train/cat/0.png"] = files["train/cat/0.png"], files["train/dog/0.png"]
    assert run_import(zipped(files))[0].digest != run_import(zipped(split_folders()))[0].digest


def test_classes_alone_are_split_four_to_one_by_content(run_import):
    dataset, _ = run_import(zipped(cats_and_dogs(each=20)))
    assert {name: split.per_class for name, split in dataset.splits.items()} == {"train": (16, 16), "test": (4, 4)}


def test_equal_bytes_never_lie_in_two_splits():
    digests = [bytes([i % 7]) for i in range(60)]
    labels = [i % 3 for i in range(60)]
    splits = split_by_content(labels, digests)
    for digest in set(digests):
        assert len({split for split, other in zip(splits, digests, strict=True) if other == digest}) == 1
    assert set(splits) == {"train", "test"}


def test_train_and_val_without_test_takes_the_test_split_from_train_and_says_so(run_import):
    files = {f"training/{name}": data for name, data in cats_and_dogs().items()}
    files |= {f"valid/{name}": png(5000 + i) for i, name in enumerate(cats_and_dogs(each=2))}
    dataset, _ = run_import(zipped(files))
    assert {name: split.images for name, split in dataset.splits.items()} == {"train": 16, "val": 4, "test": 4}
    assert [(note.code, note.images) for note in dataset.report.warnings] == [("test_split_from_train", 4)]


def test_a_class_may_be_called_train(run_import):
    files = {name.replace("cat/", "train/"): data for name, data in cats_and_dogs().items()}
    assert run_import(zipped(files))[0].classes == ("dog", "train")


def test_litter_of_operating_systems_and_wrappers_are_no_matter(run_import):
    files = {f"a/b/{name}": data for name, data in split_folders().items()}
    litter = {"__MACOSX/a/._x.png": b"x", "a/.DS_Store": b"x", "a/b/train/cat/Thumbs.db": b"x", "a/b/train/._cat": b"x"}
    dataset, _ = run_import(zipped(files | litter))
    assert dataset.digest == run_import(zipped(split_folders()))[0].digest
    assert dataset.report.skipped == ()


def test_broken_images_and_other_files_go_to_the_report_by_name(run_import):
    extra = {
        "train/cat/cut.png": png(1)[:60],
        "train/cat/text.jpg": b"no image at all",
        "train/dog/unknown": b"who knows",
        "train/dog/notes.txt": b"notes",
        "readme.md": b"read me",
        "train/loose.png": png(2),
        "train/dog/huge.png": png(3, size=(1100, 1000), mode="L")[:500],
    }
    dataset, _ = run_import(zipped(split_folders() | extra))
    assert [note.file for note in dataset.report.corrupt] == [
        "train/cat/cut.png",
        "train/cat/text.jpg",
        "train/dog/huge.png",
    ]
    assert [note.file for note in dataset.report.skipped] == [
        "readme.md",
        "train/dog/notes.txt",
        "train/dog/unknown",
        "train/loose.png",
    ]
    assert dataset.report.images == 12


def test_conversions_are_counted_with_an_example(run_import):
    files = split_folders() | {f"train/cat/alpha{i}.png": png(i, mode="RGBA") for i in range(3)}
    dataset, _ = run_import(zipped(files))
    notes = [(note.code, note.images, note.example) for note in dataset.report.warnings]
    assert notes == [("alpha_removed", 3, "train/cat/alpha0.png")]
    assert dataset.image.modes == {"RGB": 12, "RGBA": 3}


def test_fashion_mnist_imports_with_its_class_names(run_import):
    files = {path.name: path.read_bytes() for path in FASHION_MINI.iterdir()}
    dataset, folder = run_import(tarred(files, "gz"))
    assert dataset.source.format == "idx"
    assert dataset.classes[0] == "T-shirt/top"
    assert dataset.classes[9] == "Ankle boot"
    assert dataset.splits["train"].per_class == (200,) * 10
    assert dataset.splits["test"].per_class == (100,) * 10
    split = open_split(folder, dataset, "train")
    raw = gzip.decompress(files["train-images-idx3-ubyte.gz"])
    assert split.pixels is not None
    assert split.pixels.tobytes() == raw[16:]
    assert split.labels.astype(np.uint8).tobytes() == gzip.decompress(files["train-labels-idx1-ubyte.gz"])[8:]


def test_idx_without_class_names_has_numbers_and_gzip_makes_no_difference(run_import):
    plain, _ = run_import(zipped(idx_files()))
    packed, _ = run_import(zipped({f"emnist/{n}.gz": gzip.compress(data) for n, data in idx_files().items()}))
    assert plain.classes == ("0", "1")
    assert plain.digest == packed.digest


def test_idx_that_does_not_fit_is_refused_in_words(run_import):
    good = idx_files()
    labels = idx(np.zeros(3, np.uint8))
    cases = {
        "6 images, but": good | {"train-labels-idx1-ubyte": labels},
        "no labels": {name: data for name, data in good.items() if "train-labels" not in name},
        "ends before": good | {"train-images-idx3-ubyte": good["train-images-idx3-ubyte"][:-1]},
        "goes on after": good | {"t10k-labels-idx1-ubyte": good["t10k-labels-idx1-ubyte"] + b"x"},
        "names 1 classes": good | {"classes.txt": b"only\n"},
        "same split": good | {"train-other-idx3": good["train-images-idx3-ubyte"]},
    }
    for words, files in cases.items():
        refusal = refused(run_import, zipped(files))
        assert refusal.code == "bad_idx"
        assert words in refusal.message
    single = refused(run_import, gzip.compress(good["train-images-idx3-ubyte"]))
    assert "single IDX" in single.message
    assert "images and those of labels" in single.hint


@pytest.mark.parametrize("kind", ["csv", "semicolons", "jsonl"])
def test_a_manifest_says_class_and_split(run_import, kind):
    files = {f"pics/{i}.png": png(i) for i in range(8)}
    rows = [(f"pics/{i}.png", ["cat", "dog"][i % 2], "test" if i > 5 else "train") for i in range(8)]
    rows += [("pics/missing.png", "cat", "train")]
    if kind == "jsonl":
        text = "\n".join(json.dumps({"file_name": f, "label": c, "split": s}) for f, c, s in rows)
    else:
        mark = ";" if kind == "semicolons" else ","
        text = "\r\n".join(mark.join(row) for row in [("Filename", "Class", "Split"), *rows])
    name = "set/metadata.jsonl" if kind == "jsonl" else "set/manifest.csv"
    archive = {f"set/{path}": data for path, data in files.items()} | {name: text.encode(), "set/extra.png": png(99)}
    dataset, _ = run_import(zipped(archive))
    assert dataset.source.format == "manifest"
    assert {split: s.per_class for split, s in dataset.splits.items()} == {"train": (3, 3), "test": (1, 1)}
    assert [note.file for note in dataset.report.skipped] == ["pics/missing.png", "set/extra.png"]


def test_a_bad_manifest_is_refused_with_the_row(run_import):
    text = b"file,label,split\na.png,x,train\nb.png,y,holdout\n"
    refusal = refused(run_import, zipped({"manifest.csv": text, "a.png": png(0), "b.png": png(1)}))
    assert refusal.code == "bad_manifest"
    assert "row 2" in refusal.message
    refusal = refused(run_import, zipped({"manifest.csv": b"\xff\xfe\x00", "labels.jsonl": b"{", "a.png": png(0)}))
    assert refusal.code == "bad_manifest"


def test_uploads_without_a_trainable_dataset_are_refused_each_with_its_code(run_import):
    cats = {name: data for name, data in cats_and_dogs().items() if name.startswith("cat/")}
    directory = io.BytesIO(zipped(cats_and_dogs()))
    cases = {
        "no_images": [zipped({}), zipped({"readme.txt": b"x"}), zipped({"a.png": png(0)}), zipped({"c/x.jpg": b"bad"})],
        "one_class": [zipped(cats)],
        "class_without_images": [
            zipped(cats_and_dogs() | {"eel/x.png": b"bad"}),
            zipped(cats_and_dogs() | {"eel/": b""}),
            zipped(split_folders() | {"test/eel/x.png": png(1)}),
        ],
        "no_test_images": [zipped({"cat/a.png": png(0), "dog/a.png": png(1)})],
        "unsupported_archive": [
            b"",
            png(0),
            b"7z\xbc\xaf\x27\x1c....",
            b"Rar!\x1a\x07\x00",
            b"a,b\n" * 400,
            gzip.compress(b"x"),
        ],
        "broken_archive": [directory.getvalue()[:-30], tarred(cats)[:3000], tarred(cats, "gz")[:-200]],
    }
    for code, uploads in cases.items():
        for data in uploads:
            assert refused(run_import, data).code == code, data[:40]


def test_names_that_honest_systems_write_do_not_sink_an_archive(run_import):
    odd = {
        "cat/Screenshot 1.23.45\u202fPM.png": png(901),
        "cat/no\u00a0break.png": png(902),
        "cat/Icon\r": b"",
        "dog/e\u0301te\u0301.png": png(903),
    }
    dataset, _ = run_import(zipped(cats_and_dogs() | odd))
    assert dataset.report.images == 23
    latin = tarred(cats_and_dogs() | {"cat/caf\udce9.png": png(904)})
    assert run_import(latin)[0].report.images == 21


def test_a_manifest_finds_its_files_however_their_accents_are_written(run_import):
    rows = "file,label\n" + "".join(f"e\u0301{n}.png,{'a' if n % 2 else 'b'}\n" for n in range(8))
    files = {f"e\u0301{n}.png": png(n) for n in range(8)} | {"manifest.csv": rows.encode()}
    assert run_import(zipped(files))[0].report.images == 8


def test_a_file_that_only_looks_like_a_manifest_by_its_name_is_passed_over(run_import):
    strange = {"metadata.csv": b"\xff\xfe\x00binary", "labels.csv": b"x" * 200_000 + b"\n"}
    assert run_import(zipped(cats_and_dogs() | strange))[0].source.format == "image_folder"
