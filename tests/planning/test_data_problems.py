"""What a plan says is wrong with the data, before anybody trains on it."""

import json
import math
import re
from collections import Counter
from itertools import count, product
from types import SimpleNamespace

import pytest
from planning_kit import PIXELS, described, images, on_disk, recipe

from models.recipes import RECIPES, RecipeError, resolve
from store.datasets import FileNote, ImageSummary, Report, Truncated
from worker.planner import hints, identical
from worker.planner.problems import find_problems
from worker.trainer.split_sizes import sizes

GOOD = {"train": (40, 40, 40), "val": (10, 10, 10), "test": (10, 10, 10)}
MIXED = ImageSummary(sizes={"20x32": 30, "64x64": 70}, modes={"L": 40, "RGB": 60}, uniform=False)
DEEP = ImageSummary(
    sizes={"64x64": 100},
    modes={"I;16B": 20, "I": 10, "F": 10, "1": 10, "La": 10, "LA": 10, "LAB": 10, "PA": 20},
    uniform=False,
)
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
        (
            {"splits": {"train": (40, 40, 40), "test": (1, 1, 1)}, "val_fraction": 0, "keep": "last"},
            "note",
            "no_val_split",
            "nothing is held out of train",
        ),
        (
            {"splits": {"train": (40, 40, 40)}, "val_fraction": 0, "keep": "last"},
            "error",
            "no_test_data",
            "neither a val nor a test split",
        ),
        ({"report": SPOILT}, "warning", "corrupt_files", "3 files could not be imported; the first is a.jpg: cut off"),
        ({"image_size": 32}, "warning", "images_smaller_than_input", "all images are smaller"),
        ({"image": MIXED}, "warning", "images_smaller_than_input", "30 of 100 images are smaller"),
        ({"image": COLOUR}, "warning", "colour_lost", "180 images in colour"),
        ({"channels": 3, "mean": None, "std": None}, "note", "grey_as_colour", "every image is grey"),
        ({"image": MIXED, "channels": 3, "mean": None, "std": None}, "note", "grey_and_colour", "40 images of 100"),
        ({"image": DEEP, "channels": 3, "mean": None, "std": None}, "note", "grey_and_colour", "70 images of 100"),
        ({"image": DEEP}, "warning", "colour_lost", "30 images in colour"),
        ({"batch_size": 121}, "warning", "batch_larger_than_data", "121 and there are 120"),
        ({"network": "torchvision/resnet18"}, "warning", "network_for_other_size", "hardly anything is left"),
        ({"image_size": 224}, "warning", "network_for_other_size", "many times the work"),
        ({"splits": {"test": (9, 9, 9)}}, "error", "no_training_data", "no train split"),
        ({"splits": {"train": (1, 1, 1), "test": (9, 9, 9)}}, "error", "dataset_too_small", "none can be held out"),
        (
            {"splits": {**GOOD, "train": (1, 1, 1)}, "devices": 4},
            "error",
            "dataset_too_small",
            "fewer images than devices",
        ),
        ({"splits": {"train": (30,)}, "classes": ("cat",)}, "error", "too_few_classes", "fewer than two"),
    ],
)
def test_each_problem_is_named_with_its_figures_and_a_hint(arguments, severity, code, said):
    found = [each for each in problems(**arguments) if each.code == code]
    assert found
    assert found[0].severity == severity
    assert said in found[0].message
    assert found[0].hint


@pytest.mark.parametrize(
    ("overrides", "splits", "said"),
    [
        ({"step_factor": 0.2}, GOOD, "step_factor changes nothing: it belongs to the schedule step"),
        ({"step_factor": 0.2, "schedule": "step", "step_epochs": [1]}, GOOD, None),
        ({"workers": 2, "loader": "memory"}, GOOD, "workers changes nothing: they prepare streamed images"),
        ({"workers": 2}, GOOD, None),
        ({"workers": None, "loader": "memory"}, GOOD, None),
        ({"val_fraction": 0.2}, GOOD, "val_fraction changes nothing: the dataset has a val split, of 30 images"),
        ({"val_fraction": 0.2}, {"train": (40, 40, 40), "test": (9, 9, 9)}, None),
        ({"val_fraction": 0, "keep": "last"}, GOOD, "val_fraction changes nothing: the dataset has a val split"),
        ({"val_fraction": 0, "keep": "last"}, {"train": (40, 40, 40), "test": (9, 9, 9)}, None),
    ],
)
def test_an_override_that_changes_nothing_is_a_note(overrides, splits, said):
    dataset, chosen = described(splits), recipe(**overrides)
    found = find_problems(dataset, chosen, sizes(dataset, chosen), overridden=overrides)
    told = [each for each in found if each.code == "override_without_effect"]
    assert [each.severity for each in told] == ["note"] * (said is not None)
    assert all(each.message.startswith(said) and each.hint for each in told)
    unasked = find_problems(dataset, chosen, sizes(dataset, chosen))  # the same values, as a recipe may have them
    assert "override_without_effect" not in {each.code for each in unasked}


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
    found = {each.code: each.message for each in compared(layout, dataset)}
    assert "1 of 30 images in test" in found["identical_images_in_test"]
    assert "image 7" in found["identical_images_in_test"]
    assert "image 20 " in found["contradicting_labels"]  # 20 is of class 2, 0 of class 0
    assert len(found) == 2


def test_the_same_file_in_train_and_val_or_under_two_labels_is_found_by_its_bytes(layout):
    pixels, labels = images(12, seed=0)
    val, val_labels = images(6, seed=1)
    pixels[4], val[5] = pixels[0], pixels[2]
    dataset = on_disk(layout, {"train": (pixels, labels), "val": (val, val_labels)}, encoded=True)
    found = {each.code: each.message for each in compared(layout, dataset)}
    assert "1 images in train have the bytes of another one" in found["contradicting_labels"]
    assert "image 4 of class index 1" in found["contradicting_labels"]
    assert (
        "1 of 6 images in val have the bytes of one in train; the first is image 5" in found["identical_images_in_val"]
    )
    assert len(found) == 2


@pytest.mark.parametrize("encoded", [False, True])
def test_a_dataset_without_repetitions_is_found_to_have_none(layout, encoded):
    dataset = on_disk(layout, {"train": images(30, seed=0), "test": images(9, seed=1)}, encoded=encoded)
    assert compared(layout, dataset) == []


def compared(layout, dataset, *, seconds=600.0, **overrides):
    return identical.compare(layout.dataset(dataset.id), dataset, recipe(**overrides), seconds=seconds)


def test_a_plan_says_where_copies_change_how_many_images_are_held_out(layout):
    """Of the 20 images of class 0 all but one have a copy; with 3 % held out, one image of each class is enough."""
    train, labels = images(60, seed=0)
    train[3:57:3] = train[0]
    dataset = on_disk(layout, {"train": (train, labels), "test": images(9, seed=1)})
    assert compared(layout, dataset) == []
    (told,) = compared(layout, dataset, val_fraction=0.2)
    assert (told.severity, told.code) == ("note", "copies_stay_together")
    assert told.message.startswith("9 images are held out of train, not 12")


def test_a_plan_says_that_nothing_can_be_held_out_of_copies_alone(layout):
    train, labels = images(60, seed=0)
    dataset = on_disk(layout, {"train": (train[labels], labels), "test": images(9, seed=1)})
    (told,) = compared(layout, dataset)
    assert (told.severity, told.code) == ("error", "dataset_too_small")


@pytest.mark.parametrize("encoded", [False, True])
def test_what_there_was_no_time_to_compare_is_said_not_to_have_been(layout, monkeypatch, encoded):
    """By a clock of the test that runs out at the 31st image, the first of test."""
    train = images(30, seed=0)
    dataset = on_disk(layout, {"train": train, "test": train}, encoded=encoded)
    (unchecked,) = compared(layout, dataset, seconds=0.0)
    assert (unchecked.severity, unchecked.code) == ("note", "identical_images_unchecked")
    assert "0 of 60 images" in unchecked.message
    ticks = count()
    monkeypatch.setattr(identical, "time", SimpleNamespace(monotonic=lambda: next(ticks)))
    (unchecked,) = compared(layout, dataset, seconds=31)
    assert "30 of 60 images" in unchecked.message


OVERRIDES = [
    {},
    {"image_size": 32},
    {"image_size": 200, "resize": 200},
    {"batch_size": 48, "accumulate": 12},
    {"devices": 3, "batch_size": 96},
    {"mixup": 0.2, "accumulate": 3},
    {"init": {"model": "pets@1"}, "image_size": 200},
    {"init": None, "freeze_epochs": 0},
]
DATASETS = [
    {"splits": {"train": (400, 40, 4), "val": (4, 4, 4)}},
    {"splits": {"train": (4, 4, 4), "val": (4, 4, 4)}, "image": COLOUR},
    {"splits": {"train": (1, 1, 2), "val": (4, 4, 4)}, "image": MIXED},
    {"splits": GOOD, "image": ImageSummary(sizes={"6x9": 90, "300x200": 30}, modes={"L": 120}, uniform=False)},
    {"splits": GOOD, "image": ImageSummary(sizes={"30x50": 90, "5x5": 30}, modes={"L": 120}, uniform=False)},
]


@pytest.mark.parametrize("name", RECIPES)
def test_every_override_that_a_hint_names_is_accepted_and_leaves_no_more_to_override(name):
    """The problem is gone then, or its hint names nothing any more: some images may be smaller than the most."""
    applied = Counter()
    for overrides, arguments in product(OVERRIDES, DATASETS):
        try:
            chosen = resolve(name, overrides)
        except RecipeError:
            continue
        dataset = described(**arguments)
        for problem in find_problems(dataset, chosen, sizes(dataset, chosen)):
            for changes in named(problem.hint):
                changed = resolve(name, {**overrides, **changes})
                left = {each.code: each.hint for each in find_problems(dataset, changed, sizes(dataset, changed))}
                assert not list(named(left.get(problem.code, ""))), (overrides, problem.hint)
                assert not ("channels" in changes and chosen.init is not None)  # a start has channels of its own
                applied[problem.code] += 1
    assert applied["imbalanced_classes"] > 0
    assert applied["batch_larger_than_data"] > 0


def named(hint):
    """The overrides that a hint names: those between commas together, each `or` another choice."""
    for choice in hint.split(" or "):
        pairs = re.findall(r"(\w+)=(null|[\d.]*\d|\w+)", choice)
        if pairs:
            yield {name: value if value.isalpha() and value != "null" else json.loads(value) for name, value in pairs}


def test_channels_and_sizes_that_hints_name():
    """A size is that of half of the images; mean and std are measured for other channels."""
    said = {each.code: each.hint for each in problems(image=COLOUR)}
    assert said["colour_lost"].startswith("Set channels=3, mean=null, std=null, or")
    said = {each.code: each.hint for each in problems(image=DATASETS[3]["image"], channels=3, mean=None, std=None)}
    assert "channels=1" in said["grey_as_colour"]
    photographs = resolve("finetune", {})
    dataset = described(GOOD, image=ImageSummary(sizes={"150x120": 80, "400x300": 70}, modes={"L": 150}, uniform=False))
    said = {each.code: each.hint for each in find_problems(dataset, photographs, sizes(dataset, photographs))}
    assert "image_size=120, resize=137" in said["images_smaller_than_input"]
    assert "start from others" in said["grey_as_colour"]


def test_one_image_to_train_on_is_an_error_where_the_network_does_not_learn_from_it():
    one = {"train": (2, 0, 0), "test": (9, 9, 9)}
    small = {"network": "torchvision/resnet18", "image_size": 32}
    assert [each.code for each in problems(one, **small) if each.severity == "error"] == ["dataset_too_small"]
    assert not [each for each in problems(one) if each.severity == "error"]


@pytest.mark.parametrize(
    ("overrides", "fitting", "expected"),
    [
        ({"batch_size": 64}, 20, [{"batch_size": 20}, {"accumulate": 4}]),
        ({"batch_size": 64, "accumulate": 4}, 60, [{"batch_size": 60}, {"accumulate": 5}]),
        ({"batch_size": 64, "devices": 4}, 30, [{"batch_size": 28}, {"accumulate": 3}]),
        ({"batch_size": 64, "mixup": 0.2}, 1, []),
        ({"batch_size": 64, "network": "torchvision/resnet18", "image_size": 32}, 1, []),
        ({"batch_size": 64}, 0, []),
    ],
)
def test_of_a_batch_that_does_not_fit_the_hint_names_what_does(overrides, fitting, expected):
    chosen = recipe(**overrides)
    hint = hints.fewer_at_once(chosen, batch=64, fitting=fitting)
    assert list(named(hint)) == expected
    for changes in expected:
        changed = recipe(**{**overrides, **changes})
        assert math.ceil(changed.batch_size / changed.accumulate) <= math.ceil(fitting / chosen.accumulate)
    assert hint.endswith("hoose a smaller image_size or another network.")
