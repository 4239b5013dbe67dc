"""What a plan says is wrong with the data, before anybody trains on it."""

import pytest
from planning_kit import PIXELS, described, images, on_disk, recipe

from store.datasets import FileNote, ImageSummary, Report, Truncated
from worker.planner import identical
from worker.planner.problems import find_problems
from worker.planner.split_sizes import sizes

GOOD = {"train": (40, 40, 40), "val": (10, 10, 10), "test": (10, 10, 10)}
MIXED = ImageSummary(sizes={"20x32": 30, "64x64": 70}, modes={"L": 40, "RGB": 60}, uniform=False)
COLOUR = ImageSummary(sizes={"28x28": 150}, modes={"RGB": 150}, uniform=True, height=28, width=28, channels=3)
SPOILT = Report(images=1, corrupt=(FileNote(file="a.jpg", reason="cut off"),), truncated=Truncated(corrupt=2))


def problems(splits=GOOD, *, image=PIXELS, report=None, classes=("cat", "dog", "frog"), **overrides):
    dataset, chosen = described(splits, image=image, report=report, classes=classes), recipe(**overrides)
    return find_problems(dataset, chosen, sizes(dataset, chosen))


def test_a_good_dataset_has_none():
    assert problems() == []


@pytest.mark.parametrize(
    ("arguments", "severity", "code", "said"),
    [
        ({"splits": {**GOOD, "train": (40, 0, 40)}}, "warning", "class_without_images", "dog has no image in train"),
        ({"splits": {**GOOD, "test": (0, 0, 9)}}, "warning", "class_without_images", "cat, dog have no image in test"),
        ({"splits": {**GOOD, "train": (40, 9, 40)}}, "warning", "class_with_few_images", "dog"),
        ({"splits": {**GOOD, "train": (1000, 100, 10)}}, "warning", "imbalanced_classes", "100 times as many"),
        ({"splits": {"train": (40, 40, 40), "val": (1, 1, 1)}}, "warning", "no_test_split", "those of val"),
        ({"splits": {"train": (40, 40, 40), "test": (1, 1, 1)}}, "note", "no_val_split", "3% of train"),
        ({"report": SPOILT}, "warning", "corrupt_files", "3 files could not be imported; the first is a.jpg: cut off"),
        ({"image_size": 32}, "warning", "images_smaller_than_input", "all images are smaller"),
        ({"image": MIXED}, "warning", "images_smaller_than_input", "30 of 100 images are smaller"),
        ({"image": COLOUR}, "warning", "colour_lost", "180 images in colour"),
        ({"channels": 3, "mean": None, "std": None}, "note", "grey_as_colour", "every image is grey"),
        ({"image": MIXED, "channels": 3, "mean": None, "std": None}, "note", "grey_and_colour", "40 images of 100"),
        ({"batch_size": 121}, "warning", "batch_larger_than_data", "121 and there are 120"),
        ({"network": "torchvision/resnet18"}, "warning", "network_for_other_size", "hardly anything is left"),
        ({"image_size": 224}, "warning", "network_for_other_size", "many times the work"),
        ({"splits": {"test": (9, 9, 9)}}, "error", "no_training_data", "no train split"),
        ({"splits": {"train": (1, 1, 1), "test": (9, 9, 9)}}, "error", "dataset_too_small", "none can be held out"),
        ({"splits": {"train": (30,)}, "classes": ("cat",)}, "error", "too_few_classes", "fewer than two"),
    ],
)
def test_each_problem_is_named_with_its_figures_and_a_hint(arguments, severity, code, said):
    found = [each for each in problems(**arguments) if each.code == code]
    assert found
    assert found[0].severity == severity
    assert said in found[0].message
    assert found[0].hint


def test_the_worst_comes_first():
    found = [each.severity for each in problems({"train": (1, 0, 1)})]
    assert found == sorted(found, key=["error", "warning", "note"].index)
    assert found[0] == "error"


def test_an_imbalance_that_the_recipe_makes_up_for_is_none():
    rare = {**GOOD, "train": (1000, 100, 10)}
    for choice in ({"sampling": "balanced"}, {"class_weights": "balanced"}):
        assert not [each for each in problems(rare, **choice) if each.code == "imbalanced_classes"]


def test_images_of_train_that_are_in_test_too_or_have_two_labels_are_found_by_their_pixels(layout):
    train, labels = images(60, seed=0)
    test, test_labels = images(30, seed=1)
    test[7] = train[50]
    train[20] = train[0]
    dataset = on_disk(layout, {"train": (train, labels), "test": (test, test_labels)})
    found = {each.code: each.message for each in identical.compare(layout.dataset(dataset.id), dataset)}
    assert "1 of 30 images in test" in found["identical_images_in_test"]
    assert "image 7" in found["identical_images_in_test"]
    assert "image 20 " in found["contradicting_labels"]  # 20 is of class 2, 0 of class 0
    assert len(found) == 2


def test_what_would_take_too_long_to_compare_is_said_not_to_have_been(layout, monkeypatch):
    dataset = on_disk(layout, {"train": images(30, seed=0), "test": images(30, seed=0)})
    monkeypatch.setattr(identical, "CHEAP_BYTES", 1000)
    assert [each.code for each in identical.compare(layout.dataset(dataset.id), dataset)] == [
        "identical_images_unchecked"
    ]


def test_files_are_not_compared(layout):
    dataset = described(GOOD, image=MIXED)
    assert identical.compare(layout.dataset(dataset.id), dataset) == []
