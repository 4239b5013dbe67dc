"""What is wrong with a dataset for a recipe, as far as its descriptor tells. Without torch; no image is read."""

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from models.networks.registry import find
from models.recipes import Recipe
from store.datasets import Dataset
from worker.planner.hints import advice, settings
from worker.trainer.split_sizes import Sizes, has_val, refusals

FEW_IMAGES = 10  # of a class in train; fewer are hardly a class
IMBALANCE = 10.0  # the largest class against the smallest, from which accuracy says little
# How many times larger or smaller than the source's own input an image size is no longer the same work.
OTHER_SCALE = 3.5

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


def find_problems(dataset: Dataset, recipe: Recipe, sizes: Sizes, *, overridden: Collection[str] = ()) -> list[Problem]:
    """The worst first. `overridden` are the fields whose values somebody asked for."""
    found = [
        *(error(*each) for each in refusals(dataset, recipe)),
        *_classes(dataset, recipe),
        *_splits(dataset, recipe),
        *_import(dataset),
        *_pixels(dataset, recipe),
        *_recipe(recipe, sizes),
        *_without_effect(dataset, recipe, overridden),
    ]
    return in_order(found)


def in_order(found: list[Problem]) -> list[Problem]:
    order = ("error", "warning", "note")
    return sorted(found, key=lambda problem: order.index(problem.severity))


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
            advice(
                settings(recipe, sampling="balanced"),
                settings(recipe, class_weights="balanced"),
                otherwise="add images of the rare classes",
            ),
        )


def _splits(dataset: Dataset, recipe: Recipe) -> Iterator[Problem]:
    if dataset.splits.get("test") is None or dataset.splits["test"].images == 0:
        yield warning(
            "no_test_split",
            "the dataset has no test split: the metrics would be those of val, on which the epoch is chosen",
            "Add a test split of images that are in no other split.",
        )
    if has_val(dataset):
        return
    if recipe.val_fraction > 0:
        message = f"the dataset has no val split: {recipe.val_fraction:.0%} of train is held out"
        yield note("no_val_split", message, "Set val_fraction for another share.")
    else:
        message = (
            "the dataset has no val split, and nothing is held out of train: there is no accuracy before the end, "
            "no temperature is fitted, and the model is not served in int8"
        )
        yield note("no_val_split", message, "Set val_fraction=0.05 to hold some out.")


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
    sides = _shorter_sides(dataset)
    of, smaller = sides.total(), sum(count for side, count in sides.items() if side < recipe.image_size)
    if smaller:
        share = "all images" if smaller == of else f"{smaller:,} of {of:,} images"
        yield warning(
            "images_smaller_than_input",
            f"{share} are smaller than the network's input of {recipe.image_size} px and would be enlarged",
            advice(_fitting_size(recipe, sides), otherwise="upload larger images"),
        )
    colour, grey = _modes(dataset)
    if recipe.channels == 1 and colour:
        message = f"{_count(colour, 'image')} in colour would be converted to grey: the recipe takes one channel"
        yield warning("colour_lost", message, _other_channels(recipe, 3))
    if recipe.channels == 3 and grey and not colour:
        message = "every image is grey, and the recipe takes three channels: two of them say nothing new"
        yield note("grey_as_colour", message, _other_channels(recipe, 1))
    elif recipe.channels == 3 and grey:
        message = f"{_count(grey, 'image')} of {grey + colour:,} are grey"
        yield note("grey_and_colour", message, "Nothing to do, unless colour alone tells classes apart.")


def _shorter_sides(dataset: Dataset) -> Counter[int]:
    """How many images have which shorter side, among those whose size the descriptor tells."""
    if dataset.image.height is not None and dataset.image.width is not None:
        images = sum(split.images for split in dataset.splits.values())
        return Counter({min(dataset.image.height, dataset.image.width): images})
    counted = Counter[int]()
    for name, count in dataset.image.sizes.items():
        counted[min(map(int, name.split("x")))] += count
    return counted


def _fitting_size(recipe: Recipe, sides: Counter[int]) -> str:
    """The size that at least half of the images have; nothing where that is the recipe's or more."""
    seen, sizes = 0, iter(sorted(sides, reverse=True))
    while 2 * seen < sides.total():
        size = next(sizes)
        seen += sides[size]
    return settings(recipe, image_size=size) if size < recipe.image_size else ""


def _other_channels(recipe: Recipe, channels: int) -> str:
    """Mean and standard deviation are measured on the training data then."""
    if recipe.init is not None:
        has = _count(recipe.channels, "channel")
        return f"The weights that the training starts from are for {has}; start from others for another number."
    return advice(settings(recipe, channels=channels, mean=None, std=None), otherwise="choose another recipe")


def _smaller_batch(recipe: Recipe, images: int) -> str:
    """A batch of a quarter of the images or less, by powers of two; in one part where it is too small for several."""
    most = max(images // (4 * recipe.devices), 1)
    sizes = [recipe.devices << power for power in reversed(range(most.bit_length()))]
    changes = [{"batch_size": size, **more} for size in sizes if size > 1 for more in ({}, {"accumulate": 1})]
    choices = (settings(recipe, **change) for change in changes)
    return next((choice for choice in choices if choice), "")


def _for_its_size(recipe: Recipe, size: int) -> str:
    """Another network, or the size of this one where the weights to start from belong to it."""
    other = "a network that was made for such images; GET /v1/architectures shows each one's input"
    if recipe.init is None:
        return f"Choose {other}."
    return advice(settings(recipe, image_size=size), otherwise=f"start from fresh weights of {other}")


def _modes(dataset: Dataset) -> tuple[int, int]:
    """Images in colour, and in grey."""
    images = sum(split.images for split in dataset.splits.values())
    if dataset.image.channels is not None:
        return (images, 0) if dataset.image.channels == 3 else (0, images)
    grey = sum(count for mode, count in dataset.image.modes.items() if _is_grey(mode))
    return sum(dataset.image.modes.values()) - grey, grey


def _is_grey(mode: str) -> bool:
    """Of a mode in Pillow's names; those of 16 and 32 bits are many, as `I;16B`."""
    return mode.startswith("I") or mode in ("1", "F", "L", "LA", "La")


def _recipe(recipe: Recipe, sizes: Sizes) -> Iterator[Problem]:
    if 0 < sizes.train < recipe.batch_size:
        yield warning(
            "batch_larger_than_data",
            f"batch_size is {recipe.batch_size:,} and there are {sizes.train:,} images to train on: one step an epoch",
            advice(_smaller_batch(recipe, sizes.train), otherwise="add images"),
        )
    entry = find(recipe.network)
    made_for, size = entry.input[1], recipe.image_size
    if size * OTHER_SCALE <= made_for or size >= made_for * OTHER_SCALE:
        meaning = "hardly anything is left of them at its end" if size < made_for else "each takes many times the work"
        yield warning(
            "network_for_other_size",
            f"{recipe.network} was made for images of {made_for} px; at {size} px {meaning}",
            _for_its_size(recipe, made_for),
        )


def _without_effect(dataset: Dataset, recipe: Recipe, overridden: Collection[str]) -> Iterator[Problem]:
    """Overrides that change nothing. The same values in a recipe are for other trainings than this one."""
    if "step_factor" in overridden and recipe.schedule != "step":
        reason = f"it belongs to the schedule step, and this one is {recipe.schedule}"
        yield without_effect("step_factor", reason, "Leave it out, or choose the schedule step with its step_epochs.")
    if "workers" in overridden and recipe.workers is not None and recipe.loader == "memory":
        hint = advice(settings(recipe, loader="auto"), otherwise="leave it out")
        yield without_effect("workers", "they prepare streamed images, and loader is memory", hint)
    if "val_fraction" in overridden and has_val(dataset):
        reason = f"the dataset has a val split, of {_count(dataset.splits['val'].images, 'image')}"
        yield without_effect("val_fraction", reason, "Leave it out; without that split it would be what is held out.")


def without_effect(field: str, reason: str, hint: str) -> Problem:
    return note("override_without_effect", f"{field} changes nothing: {reason}", hint)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _listed(names: list[str]) -> str:
    """The first five by name."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
