import os
import shutil
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from squares import squares, write_dataset

from models.images import Decoded, prepare
from models.manifest import Preprocessing
from models.recipes import resolve
from store.layout import Layout
from store.splits import open_split
from worker.job_process import JobRefused
from worker.memory import available_bytes
from worker.trainer import data
from worker.trainer.feed import Resident, Stream, feed
from worker.trainer.hold_out import contents, stratified
from worker.trainer.pixels import Images, Streamed


def nothing() -> None:
    pass


PREPARED = Preprocessing(channels=1, height=28, width=28, resize=28, mean=(0.0,), std=(1.0,))
MEMORY, STREAM = (data.Reading(between=nothing, loader=loader) for loader in ("memory", "stream"))


def test_mean_and_std_are_those_of_the_pixels():
    pixels = np.random.default_rng(0).integers(0, 256, (20, 5, 6, 3), dtype=np.uint8)
    mean, std = data.mean_and_std(pixels, between=nothing)
    assert mean == pytest.approx((pixels / 255).mean((0, 1, 2)), abs=1e-4)
    assert std == pytest.approx((pixels / 255).std((0, 1, 2)), abs=1e-4)


@pytest.mark.parametrize("reading", [MEMORY, STREAM])
@pytest.mark.parametrize("encoded", [False, True])
def test_images_of_another_size_and_mode_are_prepared_as_for_serving(
    layout: Layout, encoded: bool, reading: data.Reading
):
    splits = {"train": squares(12, seed=0, size=40, channels=3)}
    dataset = write_dataset(layout, splits, encoded=encoded)
    recipe = resolve("fashion-mnist-small", {"val_fraction": 0.34})
    read = data.read_training_data(layout.dataset(dataset.id), dataset, recipe, reading)
    assert (len(read.train), len(read.val)) == (9, 3)
    split = open_split(layout.dataset(dataset.id), dataset, "train")
    kept, _ = stratified(split.labels, contents(split, between=nothing), fraction=0.34)
    expected, _ = prepare(Decoded(Image.fromarray(splits["train"][0][kept[5]])), read.preprocessing)
    assert np.array_equal(read.train.pixels[5], expected)
    assert np.array_equal(read.train.pixels[4:6][1], expected)
    assert read.train.pixels.shape == (9, 28, 28, 1)


def test_a_val_split_of_the_dataset_is_used_whole(layout: Layout):
    dataset = write_dataset(layout, {"train": squares(12, seed=0), "val": squares(6, seed=1)})
    recipe = resolve("fashion-mnist-small", {"mean": None, "std": None})
    read, streamed = (
        data.read_training_data(layout.dataset(dataset.id), dataset, recipe, reading) for reading in (MEMORY, STREAM)
    )
    assert (len(read.train), len(read.val)) == (12, 6)
    measured = data.mean_and_std(read.train.pixels, between=nothing)
    assert (read.preprocessing.mean, read.preprocessing.std) == measured
    assert streamed.preprocessing == read.preprocessing


def test_a_dataset_without_a_train_split_is_refused(layout: Layout):
    dataset = write_dataset(layout, {"test": squares(12, seed=0)})
    with pytest.raises(JobRefused, match="no train split"):
        data.read_training_data(layout.dataset(dataset.id), dataset, resolve("mnist", {}), MEMORY)


def test_what_is_too_small_is_refused_before_an_image_is_read(layout: Layout):
    pixels, labels = squares(9, seed=0)
    dataset = write_dataset(layout, {"train": (pixels[:2], labels[:2])})  # one of each of two classes
    shutil.rmtree(layout.dataset(dataset.id) / "data")
    with pytest.raises(JobRefused, match="none can be held out"):
        data.read_training_data(layout.dataset(dataset.id), dataset, resolve("mnist", {}), MEMORY)


def test_a_descriptor_that_counts_other_images_than_its_classes_have_is_damage(layout: Layout):
    """What counts by the descriptor, as a plan does, counts what is read."""
    dataset = write_dataset(layout, {"train": squares(12, seed=0)})
    more = dataset.splits["train"].model_copy(update={"images": 13})
    with pytest.raises(JobRefused, match="damaged"):
        data.opened(layout.dataset(dataset.id), dataset.model_copy(update={"splits": {"train": more}}), "train")


def test_what_memory_cannot_hold_is_streamed_or_refused_as_the_recipe_says(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
):
    dataset = write_dataset(layout, {"train": squares(12, seed=0)})
    folder, need = layout.dataset(dataset.id), 12 * 28 * 28
    monkeypatch.setattr(data, "_SMALL", 0)

    def read(free: int, loader: str, readers: int = 1) -> Images:
        monkeypatch.setattr(data, "available_bytes", lambda: free)
        reading = data.Reading(between=nothing, loader=loader, readers=readers)
        return data.read(folder, dataset, "train", PREPARED, reading)

    assert isinstance(read(2 * need, "auto").pixels, np.ndarray)
    assert isinstance(read(2 * need - 1, "auto").pixels, Streamed)
    assert isinstance(read(2 * need, "auto", readers=2).pixels, Streamed)
    assert isinstance(read(2 * need, "stream").pixels, Streamed)
    assert isinstance(read(need, "memory").pixels, np.ndarray)
    with pytest.raises(JobRefused, match="needs") as caught:
        read(need - 1, "memory")
    assert caught.value.code == "dataset_too_large"
    assert "stream" in caught.value.hint


def test_this_machine_tells_how_much_memory_is_free():
    assert 2**20 < available_bytes() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", ["resident", "in memory", "streamed"])
def test_every_feed_gives_the_same_images_in_the_same_order(layout: Layout, kind: str, workers: int):
    """In memory is what a GPU that is too small takes its batches from."""
    pixels, _ = splits = squares(40, seed=0, size=30)
    dataset = write_dataset(layout, {"train": splits}, encoded=True)
    reading = data.Reading(between=nothing, loader="stream" if kind == "streamed" else "memory", workers=workers)
    images = data.read(layout.dataset(dataset.id), dataset, "train", PREPARED, reading)
    cpu = torch.device("cpu")
    given = (
        Stream(images.pixels, cpu, ahead=3 * bool(workers))
        if kind == "in memory"
        else feed(images.pixels, cpu, workers=workers)
    )
    assert isinstance(given, Resident) == (kind == "resident")
    visits = np.stack([np.random.default_rng(step).permutation(40)[:8] for step in range(9)])
    batches = given.batches(visits)
    expected = np.stack([prepare(Decoded(Image.fromarray(image[:, :, 0])), PREPARED)[0] for image in pixels])
    for visit in visits[:7]:
        batch = next(batches)
        assert np.array_equal(batch.pixels[batch.index], expected[visit])
    batches.close()  # in the midst, with some on their way


def flip(content: bytes, where: int) -> bytes:
    changed = bytearray(content)
    changed[where] ^= 0xFF
    return bytes(changed)


@pytest.mark.parametrize(
    ("encoded", "file", "how"),
    [
        (False, "train.images.npy", lambda content: content[: len(content) // 2]),
        (False, "train.images.npy", lambda content: flip(content, 3)),
        (False, "train.images.npy", lambda content: b""),
        (False, "train.labels.npy", lambda content: content[:-8]),
        (False, "train.labels.npy", lambda content: flip(content, -1)),
        (False, "train.labels.npy", lambda content: flip(content, -8)),
        (True, "train.blob", lambda content: content[: len(content) // 2]),
        (True, "train.blob", lambda content: flip(content, len(content) // 2 - 200)),
        (True, "train.index.npy", lambda content: flip(content, -1)),
        (True, "train.index.npy", lambda content: b""),
    ],
)
@pytest.mark.parametrize("reading", [MEMORY, STREAM])
def test_a_damaged_dataset_is_refused_as_that_however_it_is_read(
    layout: Layout, encoded: bool, file: str, how: Callable[[bytes], bytes], reading: data.Reading
):
    dataset = write_dataset(layout, {"train": squares(12, seed=0)}, encoded=encoded)
    victim = layout.dataset(dataset.id) / "data" / file
    victim.write_bytes(how(victim.read_bytes()))
    with pytest.raises(JobRefused) as caught:
        _ = data.read(layout.dataset(dataset.id), dataset, "train", PREPARED, reading).pixels[:]
    assert caught.value.code == "dataset_damaged"
    assert "Import" in caught.value.hint


def test_a_file_of_a_dataset_that_is_gone_is_damage_too(layout: Layout):
    dataset = write_dataset(layout, {"train": squares(12, seed=0)})
    (layout.dataset(dataset.id) / "data" / "train.images.npy").unlink()
    with pytest.raises(JobRefused, match="damaged"):
        data.read(layout.dataset(dataset.id), dataset, "train", PREPARED, MEMORY)
