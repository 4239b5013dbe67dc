"""Stored datasets whose bytes have changed on the disk since their import."""

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from running import environment

from models.manifest import Preprocessing
from store.dataset_writer import DatasetWriter, Sample
from store.datasets import DATA, DESCRIPTOR, Dataset, Report, Source
from store.layout import Layout
from store.splits import open_split
from worker.job_process import REFUSED, JobRefused
from worker.trainer import data

PREPARED = Preprocessing(channels=1, height=8, width=8, resize=8, mean=(0.5,), std=(0.5,))
FILES = {False: ("images.npy", "labels.npy", "crc32.npy"), True: ("blob", "index.npy", "labels.npy", "crc32.npy")}


def imported(folder: Path, *, encoded: bool) -> Dataset:
    """Of 40 images of noise as pixels, or in files; uncompressed, so that every byte of them decodes."""
    chance = np.random.default_rng(0)
    folder.parent.mkdir(exist_ok=True)
    writer = DatasetWriter(folder)
    for number in range(40):
        size = (8, 9)[encoded and number == 0]
        pixels = chance.integers(0, 256, (size, size, 1), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels[:, :, 0]).save(file, "BMP")
        writer.add(
            Sample(
                key=f"{number:02}",
                split="test" if number % 4 == 3 else "train",
                label=number % 2,
                encoded=file.getvalue() if encoded else None,
                pixels=pixels,
                size=(size, size),
                mode="L",
            )
        )
    writer.assign_splits()
    return writer.finish(
        dataset_id=folder.name,
        name="noise",
        source=Source(format="image_folder"),
        classes=("even", "odd"),
        report=Report(images=40),
    )


def flip(path: Path, where: int) -> None:
    content = bytearray(path.read_bytes())
    content[where] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(("encoded", "file"), [(encoded, file) for encoded in FILES for file in FILES[encoded]])
@pytest.mark.parametrize("loader", ["memory", "stream"])
def test_a_bit_that_flips_in_any_file_is_damage_and_the_file_or_image_is_named(
    layout: Layout, encoded: bool, file: str, loader: str
):
    folder = layout.dataset("ds_noise")
    dataset = imported(folder, encoded=encoded)
    reading = data.Reading(between=lambda: None, loader=loader)
    _ = data.read(folder, dataset, "train", PREPARED, reading).pixels[:]
    flip(folder / DATA / f"train.{file}", -11)
    with pytest.raises(JobRefused) as refused:
        _ = data.read(folder, dataset, "train", PREPARED, reading).pixels[:]
    assert refused.value.code == "dataset_damaged"
    named = "image 29" if file in ("blob", "images.npy") else f"train.{file}"
    assert f"{named} is not what was imported" in str(refused.value)
    assert refused.value.hint == "Import the dataset again, or put its files back from a copy."
    data.opened(folder, dataset, "test")


def test_two_labels_that_changed_places_are_damage(layout: Layout):
    """The descriptor's counts do not show it."""
    folder = layout.dataset("ds_noise")
    dataset = imported(folder, encoded=False)
    path = folder / DATA / "train.labels.npy"
    labels = np.load(path)
    labels[[0, 1]] = labels[[1, 0]]
    np.save(path, labels)
    with pytest.raises(JobRefused, match=r"train\.labels\.npy is not what was imported"):
        data.opened(folder, dataset, "train")


def test_a_file_of_checksums_that_is_gone_is_damage(layout: Layout):
    folder = layout.dataset("ds_noise")
    dataset = imported(folder, encoded=True)
    (folder / DATA / "train.crc32.npy").unlink()
    with pytest.raises(JobRefused, match=r"crc32\.npy") as refused:
        data.opened(folder, dataset, "train")
    assert refused.value.code == "dataset_damaged"


def test_a_dataset_that_was_imported_before_there_were_checksums_is_read_as_it_was(layout: Layout):
    folder = layout.dataset("ds_noise")
    imported(folder, encoded=False)
    descriptor = json.loads((folder / DESCRIPTOR).read_bytes())
    assert set(descriptor.pop("checksums")) == {
        f"{split}.{kind}.npy" for split in ("train", "test") for kind in ("labels", "crc32")
    }
    (folder / DESCRIPTOR).write_text(json.dumps(descriptor))
    for split in ("train", "test"):
        (folder / DATA / f"{split}.crc32.npy").unlink()
    dataset = Dataset.read(folder)
    assert dataset.checksums == {}
    flip(folder / DATA / "train.images.npy", -1)
    assert len(data.opened(folder, dataset, "train")) == 30


def test_a_plan_reads_no_pixels_to_see_whether_they_have_changed(layout: Layout):
    folder = layout.dataset("ds_noise")
    dataset = imported(folder, encoded=False)
    flip(folder / DATA / "train.images.npy", -1)
    assert len(data.opened(folder, dataset, "train", pixels=False)) == 30
    flip(folder / DATA / "train.labels.npy", -1)
    with pytest.raises(JobRefused, match="labels"):
        data.opened(folder, dataset, "train", pixels=False)


def test_who_opens_a_split_without_saying_how_to_refuse_has_a_value_error(layout: Layout):
    folder = layout.dataset("ds_noise")
    dataset = imported(folder, encoded=True)
    flip(folder / DATA / "test.index.npy", -1)
    with pytest.raises(ValueError, match="index"):
        open_split(folder, dataset, "test")
    with pytest.raises(KeyError):
        open_split(folder, dataset, "val")


@pytest.mark.parametrize(("encoded", "file"), [(False, "train.images.npy"), (True, "train.blob")])
def test_a_training_on_images_that_have_changed_ends_with_an_error_line(layout: Layout, encoded: bool, file: str):
    imported(layout.dataset("ds_noise"), encoded=encoded)
    flip(layout.dataset("ds_noise") / DATA / file, -1)
    job = layout.job("job_1")
    job.mkdir()
    overrides = {"image_size": 8, "crop_padding": 1, "epochs": 1, "warmup_epochs": 0, "batch_size": 8}
    spec = {"kind": "train", "dataset": "ds_noise", "recipe": "fashion-mnist-small", "register_as": "noise"}
    (job / "spec.json").write_text(json.dumps({**spec, "overrides": {**overrides, "loader": "stream"}}))
    command = [sys.executable, "-m", "worker.trainer", str(job), "--claim", "1", "--device", "cpu"]
    ended = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=200, check=False)
    last = json.loads(ended.stdout.splitlines()[-1])
    assert (ended.returncode, last["type"], last["data"]["code"]) == (REFUSED, "error", "dataset_damaged")
    assert "image 29 is not what was imported" in last["data"]["message"]
    shutil.rmtree(job)
