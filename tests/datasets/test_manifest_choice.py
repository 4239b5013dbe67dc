"""Which table of an archive is its manifest, and where folders say it instead."""

import json

import pytest
from archives import cats_and_dogs, png, zipped

from worker.job_process import JobRefused


def table(mark: str = ",", *, head: tuple[str, str] = ("image", "category")) -> bytes:
    """Eight images, cats and dogs by turns."""
    rows = [head, *((f"pics/{n}.png", "cat" if n % 2 else "dog") for n in range(8))]
    return "\n".join(mark.join(row) for row in rows).encode()


PICTURES = {f"pics/{n}.png": png(n) for n in range(8)}


@pytest.mark.parametrize("folder", ["", "pets/", "pets/v1/"])
@pytest.mark.parametrize("name", ["Animals of 2024.csv", "animals.tsv", "animals.jsonl"])
def test_a_manifest_at_the_top_may_have_any_name(run_import, folder, name):
    lines = [json.dumps({"path": f"pics/{n}.png", "class": "cat" if n % 2 else "dog"}) for n in range(8)]
    text = "\n".join(lines).encode() if name.endswith("jsonl") else table("\t" if name.endswith("tsv") else ",")
    files = {f"{folder}{path}": data for path, data in PICTURES.items()}
    others = {f"{folder}sizes.csv": b"file,bytes\npics/1.png,100\n", f"{folder}log.jsonl": b"no JSON\n"}
    dataset, _ = run_import(zipped(files | others | {f"{folder}{name}": text, "readme.md": b"pets"}))
    assert (dataset.source.format, dataset.classes, dataset.report.images) == ("manifest", ("cat", "dog"), 8)
    assert [note.file for note in dataset.report.skipped] == sorted([*others, "readme.md"])


def test_a_manifest_with_a_usual_name_comes_before_other_tables_that_would_do(run_import):
    other = table().replace(b"cat", b"tiger")
    dataset, _ = run_import(zipped(PICTURES | {"a.csv": other, "b.csv": other, "metadata.csv": table()}))
    assert dataset.classes == ("cat", "dog")
    assert [note.file for note in dataset.report.skipped] == ["a.csv", "b.csv"]


def test_of_several_tables_that_would_do_none_is_guessed(run_import):
    with pytest.raises(JobRefused) as caught:
        run_import(zipped(PICTURES | {"a.csv": table(), "b.tsv": table("\t")}))
    assert (caught.value.code, "a.csv, b.tsv" in caught.value.message) == ("bad_manifest", True)
    assert "manifest.csv" in caught.value.hint


def test_a_table_below_the_top_is_no_manifest_unless_it_is_called_one(run_import):
    folders = cats_and_dogs() | {"cat/more.csv": table(), "statistics.csv": table(head=("image", "width"))}
    dataset, _ = run_import(zipped(folders))
    assert dataset.source.format == "image_folder"
    assert [note.file for note in dataset.report.skipped] == ["cat/more.csv", "statistics.csv"]


def submission(names: list[str]) -> bytes:
    """Of a competition: every image, with a label that says nothing."""
    return "\n".join(["image,label", *(f"{name},none" for name in names)]).encode()


@pytest.mark.parametrize("below", ["train/", ""])
@pytest.mark.parametrize("tables", [1, 2])
def test_where_folders_tell_the_classes_no_table_without_the_name_of_one_changes_them(run_import, below, tables):
    files = cats_and_dogs(prefix=below)
    lists = {f"sample_submission{n}.csv": submission(list(files)) for n in range(tables)}
    dataset, _ = run_import(zipped(files | lists))
    assert (dataset.source.format, dataset.classes, dataset.report.images) == ("image_folder", ("cat", "dog"), 20)
    assert [note.file for note in dataset.report.skipped] == list(lists)


def test_where_folders_tell_the_classes_a_table_with_the_name_of_one_does_so_instead(run_import):
    files = cats_and_dogs()
    rows = "\n".join(["image,label", *(f"{name},{'even' if n % 2 else 'odd'}" for n, name in enumerate(files))])
    dataset, _ = run_import(zipped(files | {"labels.csv": rows.encode()}))
    assert (dataset.source.format, dataset.classes) == ("manifest", ("even", "odd"))


def test_train_and_test_with_all_images_right_in_them_are_no_classes(run_import):
    files = {f"{split}/{n}.png": png(n + 10 * (split == "test")) for split in ("train", "test") for n in range(6)}
    rows = [f"{name},{'cat' if n % 2 else 'dog'},{name.partition('/')[0]}" for n, name in enumerate(files)]
    text = "\n".join(["image,label,split", *rows]).encode()
    dataset, _ = run_import(zipped(files | {"animals.csv": text}))
    assert (dataset.source.format, dataset.classes) == ("manifest", ("cat", "dog"))
    assert {name: split.images for name, split in dataset.splits.items()} == {"train": 6, "test": 6}


def test_a_table_that_labels_no_image_of_the_archive_is_no_manifest(run_import):
    elsewhere = submission([f"competition/{n}.png" for n in range(8)])
    dataset, _ = run_import(zipped(PICTURES | {"animals.csv": table(), "sample_submission.csv": elsewhere}))
    assert (dataset.source.format, dataset.classes) == ("manifest", ("cat", "dog"))
    with pytest.raises(JobRefused) as caught:  # as without it: one folder is one class
        run_import(zipped(PICTURES | {"sample_submission.csv": elsewhere}))
    assert caught.value.code == "one_class"


@pytest.mark.parametrize("name", ["README", "LICENSE", "docs/LICENSE"])
def test_files_without_a_suffix_beside_the_folder_of_the_images_do_not_hide_its_manifest(run_import, name):
    files = {f"pets/{path}": data for path, data in PICTURES.items()} | {"pets/animals.csv": table(), name: b"words"}
    dataset, _ = run_import(zipped(files))
    assert (dataset.source.format, dataset.classes, dataset.report.images) == ("manifest", ("cat", "dog"), 8)


def test_images_may_all_lack_a_suffix(run_import):
    files = {f"pics/{n}": png(n) for n in range(8)}
    dataset, _ = run_import(zipped(files | {"animals.csv": table().replace(b".png", b"")}))
    assert (dataset.source.format, dataset.report.images) == ("manifest", 8)
