import numpy as np
import pytest
from PIL import Image
from squares import squares, write_dataset

from models.images import Decoded, prepare
from models.recipes import resolve
from store.layout import Layout
from worker.job_process import JobRefused
from worker.trainer import data


def nothing() -> None:
    pass


def test_the_carved_validation_split_is_stratified_and_repeats_with_the_seed():
    labels = np.repeat([0, 1, 2], [100, 50, 1])
    kept, held = data.stratified(labels, fraction=0.1, seed=4)
    assert np.bincount(labels[held]).tolist() == [10, 5]
    assert sorted([*kept, *held]) == list(range(151))
    assert np.array_equal(held, data.stratified(labels, fraction=0.1, seed=4)[1])
    assert not np.array_equal(held, data.stratified(labels, fraction=0.1, seed=5)[1])


def test_mean_and_std_are_those_of_the_pixels():
    pixels = np.random.default_rng(0).integers(0, 256, (20, 5, 6, 3), dtype=np.uint8)
    mean, std = data.mean_and_std(pixels)
    assert mean == pytest.approx((pixels / 255).mean((0, 1, 2)), abs=1e-4)
    assert std == pytest.approx((pixels / 255).std((0, 1, 2)), abs=1e-4)


@pytest.mark.parametrize("encoded", [False, True])
def test_images_of_another_size_and_mode_are_prepared_as_for_serving(layout: Layout, encoded: bool):
    splits = {"train": squares(12, seed=0, size=40, channels=3)}
    dataset = write_dataset(layout, splits, encoded=encoded)
    recipe = resolve("fashion-mnist-small", {"val_fraction": 0.34})
    read = data.read_training_data(layout.dataset(dataset.id), dataset, recipe, nothing)
    assert (len(read.train), len(read.val)) == (9, 3)
    kept, _ = data.stratified(splits["train"][1], fraction=0.34, seed=recipe.seed)
    expected, _ = prepare(Decoded(Image.fromarray(splits["train"][0][kept[5]])), read.preprocessing)
    assert np.array_equal(read.train.pixels[5], expected)
    assert read.train.pixels.shape == (9, 28, 28, 1)


def test_a_val_split_of_the_dataset_is_used_whole(layout: Layout):
    dataset = write_dataset(layout, {"train": squares(12, seed=0), "val": squares(6, seed=1)})
    recipe = resolve("fashion-mnist-small", {"mean": None, "std": None})
    read = data.read_training_data(layout.dataset(dataset.id), dataset, recipe, nothing)
    assert (len(read.train), len(read.val)) == (12, 6)
    assert (read.preprocessing.mean, read.preprocessing.std) == data.mean_and_std(read.train.pixels)


def test_a_dataset_without_a_train_split_is_refused(layout: Layout):
    dataset = write_dataset(layout, {"test": squares(12, seed=0)})
    with pytest.raises(JobRefused, match="no train split"):
        data.read_training_data(layout.dataset(dataset.id), dataset, resolve("mnist", {}), nothing)
