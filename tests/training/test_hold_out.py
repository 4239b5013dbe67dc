"""Which training images a run validates on, where the dataset has none for that."""

import numpy as np
import pytest
from squares import squares, write_dataset

from models.recipes import Recipe, resolve
from store.datasets import Dataset
from store.layout import Layout
from worker.job_process import JobRefused
from worker.trainer import data
from worker.trainer.hold_out import stratified
from worker.trainer.split_sizes import held_out, sizes


def hashes(count: int, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**64, count, dtype=np.uint64)


def recipe(**overrides: object) -> Recipe:
    return resolve("fashion-mnist-small", {"val_fraction": 0.1, **overrides})


def read(layout: Layout, dataset: Dataset, recipe: Recipe, *, loader: str = "memory") -> data.TrainingData:
    reading = data.Reading(between=lambda: None, loader=loader)
    return data.read_training_data(layout.dataset(dataset.id), dataset, recipe, reading)


def contents(read: data.Images) -> list[bytes]:
    return [image.tobytes() for image in read.pixels[:]]


def test_of_each_class_its_share_is_held_out_to_the_image_where_there_are_no_copies():
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2, 4], [100, 50, 1, 7]))
    kept, held = stratified(labels, hashes(len(labels)), fraction=0.1)
    assert np.bincount(labels[held], minlength=5).tolist() == held_out(np.bincount(labels), 0.1).tolist()
    assert sorted([*kept, *held]) == list(range(158))


def test_of_a_class_with_two_images_or_more_one_at_least_is_held_out_and_one_is_not():
    assert held_out(np.array([0, 1, 2, 3, 5, 40]), 0.1).tolist() == [0, 0, 1, 1, 1, 4]
    assert held_out(np.array([2, 10]), 0.89).tolist() == [1, 9]


def test_the_images_held_out_are_those_with_the_least_hashes():
    labels = np.array([0, 0, 0, 1, 1, 1, 0])
    kept, held = stratified(labels, np.array([9, 2**63, 5, 3, 1, 2, 7], np.uint64), fraction=0.4)
    assert (kept.tolist(), held.tolist()) == ([0, 1, 3, 5], [2, 4, 6])


@pytest.mark.parametrize("contents", [10_000, 900, 300, 40])
def test_what_a_smaller_share_holds_out_is_among_what_a_larger_one_does_and_copies_are_together(contents: int):
    """Of 1,000 images with ever more copies, some of them under another label."""
    draw = np.random.default_rng(contents)
    every, labels = hashes(contents)[draw.integers(0, contents, 1000)], draw.integers(0, 3, 1000)
    labels = np.where(draw.random(1000) < 0.8, every % np.uint64(3), labels).astype(np.int64)
    smaller: set[int] = set()
    for fraction in (0.01, 0.05, 0.1, 0.3, 0.6, 0.89):
        kept, held = stratified(labels, every, fraction=fraction)
        assert not set(every[kept]) & set(every[held])
        assert smaller <= set(held)
        assert set(labels[kept]) == {0, 1, 2}
        smaller = set(held)


def test_images_with_copies_are_held_out_only_where_a_class_has_too_few_others():
    """The sizes are those that the descriptor tells as long as it has enough."""
    labels = np.repeat([0, 1], [20, 20])
    every = hashes(40)
    every[1:9] = every[0]
    for fraction, expected in ((0.1, [2, 2]), (0.5, [10, 10]), (0.6, [11, 12]), (0.88, [11, 18])):
        _, held = stratified(labels, every, fraction=fraction)
        assert np.bincount(labels[held]).tolist() == expected
        assert not set(range(9)) & set(held)
    twice = np.repeat(hashes(20), 2)  # each image is there twice
    _, held = stratified(labels, twice, fraction=0.05)
    assert np.bincount(labels[held]).tolist() == [2, 2]
    _, held = stratified(labels, twice, fraction=0.26)
    assert np.bincount(labels[held]).tolist() == [4, 4]


def test_an_image_under_two_labels_is_not_held_out():
    labels, every = np.array([0, 0, 0, 1, 1, 1]), np.array([1, 5, 6, 1, 7, 8], np.uint64)
    _, held = stratified(labels, every, fraction=0.6)
    assert held.tolist() == [1, 2, 4, 5]


def test_a_run_never_validates_on_a_copy_of_what_it_learns(layout: Layout):
    pixels, labels = squares(120, seed=0)
    pixels[30:60] = pixels[:30]
    dataset = write_dataset(layout, {"train": (pixels, labels)})
    for seed in range(3):
        found = read(layout, dataset, recipe(seed=seed))
        assert not set(contents(found.train)) & set(contents(found.val))
        counted = sizes(dataset, recipe())
        assert (len(found.train), len(found.val)) == (counted.train, counted.val) == (108, 12)


@pytest.mark.parametrize("encoded", [False, True])
def test_the_same_images_are_held_out_whatever_the_seed_the_order_and_the_way_of_reading(layout: Layout, encoded: bool):
    """So a training that starts from another one's model does not validate on what that one learned."""
    pixels, labels = squares(120, seed=0)
    order = np.random.default_rng(0).permutation(120)
    dataset = write_dataset(layout, {"train": (pixels, labels)}, encoded=encoded)
    turned = write_dataset(layout, {"train": (pixels[order], labels[order])}, encoded=encoded, name="ds_turned")
    first = read(layout, dataset, recipe()).val
    assert np.bincount(first.labels).tolist() == [4, 4, 4]
    for other in (
        read(layout, dataset, recipe(seed=5)),
        read(layout, dataset, recipe(), loader="stream"),
        read(layout, turned, recipe()),
    ):
        assert sorted(contents(other.val)) == sorted(contents(first))
    assert set(contents(read(layout, dataset, recipe(val_fraction=0.3)).val)) > set(contents(first))


def test_the_images_held_out_are_the_same_in_every_version(layout: Layout):
    """A run that goes on with newer code validates on what it has not trained on."""
    pixels = np.arange(20, dtype=np.uint8).repeat(64).reshape(20, 8, 8, 1)
    dataset = write_dataset(layout, {"train": (pixels, np.arange(20) % 3)})
    found = read(layout, dataset, recipe(val_fraction=0.3, image_size=8, crop_padding=0))
    assert found.val.pixels[:, 0, 0, 0].tolist() == [1, 2, 4, 6, 8, 12]


def test_a_dataset_of_copies_alone_is_refused(layout: Layout):
    pixels, labels = squares(30, seed=0)
    dataset = write_dataset(layout, {"train": (pixels[labels], labels)})
    with pytest.raises(JobRefused, match="none can be held out") as refused:
        read(layout, dataset, recipe())
    assert refused.value.code == "dataset_too_small"
