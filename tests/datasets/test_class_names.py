"""What a class may be called, whoever names it, and which folders are classes without an image."""

import json
import time

import pytest
from archives import png, zipped

from store import class_names
from worker.importer.archive import Member
from worker.importer.plan import plan_folders
from worker.job_process import JobRefused


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["cat", ""], "empty name"),
        (["cat", "d" * 256], "256 characters"),
        (["cat", "dog\x1b[2J"], "control character"),
        (["cat", "cat"], "named twice"),
        ([str(number) for number in range(class_names.MOST + 1)], "100,001 classes"),
    ],
)
def test_names_that_no_class_can_have_are_told(names, reason):
    assert reason in str(class_names.unclear(names))


def test_names_of_any_language_and_the_longest_are_clear():
    assert class_names.unclear(["猫", "Käfer", "c" * 255, "नमस्ते", "=SUM(A1)", "<b>"]) is None


@pytest.mark.parametrize("label", ["a" * 900_000, "=cmd|x\x1b]0;pwn\x07"])
def test_a_manifest_whose_labels_are_no_names_is_refused_before_an_image_is_read(run_import, label):
    rows = "\n".join(json.dumps({"file": f"{n}.png", "label": label if n else "cat"}) for n in range(4))
    files = {"labels.jsonl": rows.encode(), **{f"{n}.png": png(n) for n in range(4)}}
    with pytest.raises(JobRefused) as caught:
        run_import(zipped(files))
    assert (caught.value.code, "255 characters" in caught.value.hint) == ("bad_class_names", True)
    assert len(caught.value.message) < 300


def test_a_class_folder_without_images_is_found_among_very_many_files_and_folders():
    files = [Member((f"c{n % 10}", f"{n}.png"), 1, n, None) for n in range(30_000)]
    folders = [(f"c{n % 10}",) for n in range(10)] + [(f"empty{n}",) for n in range(30_000)]
    began = time.process_time()
    plan = plan_folders(files, folders)
    assert time.process_time() - began < 10, "not each folder with each file"
    assert len(plan.empty) == 30_000
