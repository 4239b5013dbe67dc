"""What is wrong with a dataset for a recipe, as far as its descriptor tells. Without torch; no image is read."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from models.networks.registry import find
from models.recipes import Recipe
from store.datasets import Dataset
from worker.planner.split_sizes import Sizes

FEW_IMAGES = 10  # of a class in train; fewer are hardly a class
IMBALANCE = 10.0  # the largest class against the smallest, from which accuracy says little
OTHER_SCALE = (
    3.5  # how many times larger or smaller than the source's own input an image size is no longer the same work
)

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """`error`: the training would be refused; `warning`: its result would be poor; `note`: good to know."""

    severity: Severity
    code: str
    message: str
    hint: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def error(code: str, message: str, hint: str) -> Problem:
    return Problem(severity="error", code=code, message=message, hint=hint)


def warning(code: str, message: str, hint: str) -> Problem:
    return Problem(severity="warning", code=code, message=message, hint=hint)


def note(code: str, message: str, hint: str) -> Problem:
    return Problem(severity="note", code=code, message=message, hint=hint)


def find_problems(dataset: Dataset, recipe: Recipe, sizes: Sizes) -> list[Problem]:
    """The worst first."""
    found = [
        *_refusals(dataset, sizes),
        *_classes(dataset, recipe),
        *_splits(dataset, recipe),
        *_import(dataset),
        *_pixels(dataset, recipe),
        *_recipe(recipe, sizes),
    ]
    return in_order(found)


def in_order(found: list[Problem]) -> list[Problem]:
    order = ("error", "warning", "note")
    return sorted(found, key=lambda problem: order.index(problem.severity))


def _refusals(dataset: Dataset, sizes: Sizes) -> Iterator[Problem]:
    train = dataset.splits.get("train")
    if len(dataset.classes) < 2:
        yield error("too_few_classes", "the dataset has fewer than two classes", "Upload one with two or more.")
    if train is None or train.images < 2:
        yield error("no_training_data", "the dataset has no train split to learn from", "Add a train split.")
    elif sizes.val == 0:
        yield error("dataset_too_small", "no class has two images: none can be held out", "Add images.")


def _classes(dataset: Dataset, recipe: Recipe) -> Iterator[Problem]:
    for name, split in dataset.splits.items():
        absent = [dataset.classes[i] for i, count in enumerate(split.per_class) if count == 0]
        if absent and split.images:
            meaning = "nothing is learned of it" if name == "train" else "nothing is measured of it"
            which = f"{_listed(absent)} {'have' if len(absent) > 1 else 'has'} no image in {name}"
            yield warning("class_without_images", f"{which}: {meaning}", "Add images, or leave the class out.")
    train = dataset.splits.get("train")
    if train is None or not any(train.per_class):
        return
    few = [dataset.classes[i] for i, count in enumerate(train.per_class) if 0 < count < FEW_IMAGES]
    if few:
        message = f"{_listed(few)}: fewer than {FEW_IMAGES} images in train"
        yield warning("class_with_few_images", message, "Add images of these classes.")
    least, most = min(count for count in train.per_class if count), max(train.per_class)
    if most / least >= IMBALANCE and recipe.class_weights == "none" and recipe.sampling == "shuffle":
        large, small = (dataset.classes[train.per_class.index(count)] for count in (most, least))
        yield warning(
            "imbalanced_classes",
            f"{large} has {most:,} images in train, {small} has {least:,}: {most / least:.0f} times as many",
            "Set sampling=balanced or class_weights=balanced, or add images of the rare classes.",
        )


def _splits(dataset: Dataset, recipe: Recipe) -> Iterator[Problem]:
    if dataset.splits.get("test") is None or dataset.splits["test"].images == 0:
        yield warning(
            "no_test_split",
            "the dataset has no test split: the metrics would be those of val, on which the epoch is chosen",
            "Add a test split of images that are in no other split.",
        )
    if dataset.splits.get("val") is None or dataset.splits["val"].images == 0:
        yield note(
            "no_val_split",
            f"the dataset has no val split: {recipe.val_fraction:.0%} of train is held out",
            "Set val_fraction for another share.",
        )


def _import(dataset: Dataset) -> Iterator[Problem]:
    corrupt = len(dataset.report.corrupt) + dataset.report.truncated.corrupt
    if corrupt:
        first = dataset.report.corrupt[0]
        yield warning(
            "corrupt_files",
            f"{_count(corrupt, 'file')} could not be imported; the first is {first.file}: {first.reason}",
            f"GET /v1/datasets/{dataset.id} lists them in report.corrupt.",
        )


def _pixels(dataset: Dataset, recipe: Recipe) -> Iterator[Problem]:
    smaller, of = _smaller_than(dataset, recipe.image_size)
    if smaller:
        share = "all images" if smaller == of else f"{smaller:,} of {of:,} images"
        yield warning(
            "images_smaller_than_input",
            f"{share} are smaller than the network's input of {recipe.image_size} px and would be enlarged",
            "Set a smaller image_size where the network allows, or upload larger images.",
        )
    colour, grey = _modes(dataset)
    if recipe.channels == 1 and colour:
        message = f"{_count(colour, 'image')} in colour would be converted to grey: the recipe takes one channel"
        yield warning("colour_lost", message, "Set channels=3 and a mean and std of three values.")
    if recipe.channels == 3 and grey and not colour:
        message = "every image is grey, and the recipe takes three channels: two of them say nothing new"
        yield note("grey_as_colour", message, "Set channels=1 and a mean and std of one value.")
    elif recipe.channels == 3 and grey:
        message = f"{_count(grey, 'image')} of {grey + colour:,} are grey"
        yield note("grey_and_colour", message, "Nothing to do, unless colour alone tells classes apart.")


def _smaller_than(dataset: Dataset, size: int) -> tuple[int, int]:
    """Images with a side shorter than `size`, among those whose size the descriptor tells; and how many those are."""
    if dataset.image.height is not None and dataset.image.width is not None:
        images = sum(split.images for split in dataset.splits.values())
        return images if min(dataset.image.height, dataset.image.width) < size else 0, images
    counted = [(min(map(int, name.split("x"))), count) for name, count in dataset.image.sizes.items()]
    return sum(count for side, count in counted if side < size), sum(count for _, count in counted)


def _modes(dataset: Dataset) -> tuple[int, int]:
    """Images in colour, and in grey."""
    images = sum(split.images for split in dataset.splits.values())
    if dataset.image.channels is not None:
        return (images, 0) if dataset.image.channels == 3 else (0, images)
    grey = sum(count for mode, count in dataset.image.modes.items() if mode in ("1", "L", "LA", "I", "I;16", "F"))
    return sum(dataset.image.modes.values()) - grey, grey


def _recipe(recipe: Recipe, sizes: Sizes) -> Iterator[Problem]:
    if 0 < sizes.train < recipe.batch_size:
        yield warning(
            "batch_larger_than_data",
            f"batch_size is {recipe.batch_size:,} and there are {sizes.train:,} images to train on: one step an epoch",
            "Set a smaller batch_size.",
        )
    entry = find(recipe.network)
    made_for, size = entry.input[1], recipe.image_size
    if size * OTHER_SCALE <= made_for or size >= made_for * OTHER_SCALE:
        meaning = "hardly anything is left of them at its end" if size < made_for else "each takes many times the work"
        yield warning(
            "network_for_other_size",
            f"{recipe.network} was made for images of {made_for} px; at {size} px {meaning}",
            "Choose a network that was made for such images; GET /v1/architectures shows each one's input.",
        )


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _listed(names: list[str]) -> str:
    """The first five by name."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
