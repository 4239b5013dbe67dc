"""What makes no sense about a recipe although each field alone is right: refused before anything is queued."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from models.nearest import nearest
from models.networks.registry import NETWORKS, find

if TYPE_CHECKING:
    from models.manifest import Manifest
    from models.recipes.recipe import Recipe


class Senseless(ValueError):
    """Fields that do not go together. `hint` names overrides, each of which would do, and whatever `more` there is."""

    def __init__(self, reason: str, *choices: Mapping[str, object], more: str = "") -> None:
        super().__init__(reason)
        written = [" and ".join(f"{name}={_written(value)}" for name, value in each.items()) for each in choices]
        self.hint = " ".join(filter(None, [f"Set {', or '.join(written)}." if written else "", more]))


def _written(value: object) -> str:
    """As `--set` takes it."""
    return value if isinstance(value, str) else json.dumps(value)


def nonsense(recipe: Recipe) -> Senseless | None:
    """The first reason why the fields do not go together, or None."""
    checks = (_input, _schedule, _batch, _augmentation, _balance, _start, _choice)
    return next((reason for check in checks for reason in check(recipe)), None)


def trains_alone(recipe: Recipe) -> bool:
    """Whether the network learns from one image by itself, at the recipe's size."""
    return recipe.image_size >= find(recipe.network).trains_alone


def _input(recipe: Recipe) -> Iterator[Senseless]:
    entry, size = find(recipe.network), recipe.image_size
    if entry.fixed_size and size != entry.input[1]:
        fitting = {"image_size": entry.input[1]}
        yield Senseless(f"image_size must be {entry.input[1]} for network {recipe.network}", fitting)
    if recipe.resize is not None and recipe.resize < size:
        yield Senseless("resize must be at least image_size", {"resize": f"{size} or more"}, {"resize": None})
    measured = "What is null is measured on the training images."
    if recipe.init is not None and recipe.init.weights is not None and entry.weights:
        theirs, unfit = entry.input[0], _not_of(entry.input[0], recipe)
        if recipe.channels != theirs:
            reason = f"the weights {recipe.init.weights} are for {theirs} channels, to which grey images are converted"
            yield Senseless(reason, {"channels": theirs, **unfit}, more=measured if unfit else "")
    if unfit := _not_of(recipe.channels, recipe):
        yield Senseless(f"{next(iter(unfit))} needs {recipe.channels} values, one a channel", unfit, more=measured)


def _not_of(channels: int, recipe: Recipe) -> dict[str, None]:
    """`mean` and `std` where they are not a value for each of so many channels."""
    both = {"mean": recipe.mean, "std": recipe.std}
    return {name: None for name, values in both.items() if values is not None and len(values) != channels}


def _schedule(recipe: Recipe) -> Iterator[Senseless]:
    if recipe.warmup_epochs > recipe.epochs:
        yield _too_long("warmup_epochs", recipe.warmup_epochs, recipe.epochs)
    if recipe.schedule == "step" and not recipe.step_epochs:
        yield Senseless("the schedule step needs step_epochs", {"step_epochs": _even(recipe.epochs, 3)})
    if recipe.schedule != "step" and recipe.step_epochs:
        reason = "step_epochs belongs to the schedule step, and only to it"
        yield Senseless(reason, {"schedule": "step"}, {"step_epochs": []})
    rising = sorted(set(recipe.step_epochs))
    if list(recipe.step_epochs) != rising:
        yield Senseless("step_epochs must rise, each once", {"step_epochs": rising})
    if recipe.step_epochs and recipe.step_epochs[-1] >= recipe.epochs:
        yield Senseless(
            f"step_epochs must lie before the end of {recipe.epochs} epochs: at {recipe.step_epochs[-1]:g} the "
            "learning rate would never fall",
            {"step_epochs": _even(recipe.epochs, len(recipe.step_epochs) + 1)},
        )
    if recipe.optimizer == "nesterov" and recipe.momentum == 0:
        reason = "nesterov needs a momentum above 0; without one, the optimizer is sgd"
        yield Senseless(reason, {"optimizer": "sgd"}, {"momentum": 0.9})


def _even(epochs: int, parts: int) -> list[float]:
    """Between parts of the same length."""
    return [round(epochs * part / parts, 2) for part in range(1, parts)]


def _too_long(name: str, value: float, epochs: int) -> Senseless:
    enough = {"epochs": f"{math.ceil(value)} or more"}
    return Senseless(f"{name} must not be more than epochs", {name: f"{epochs} or less"}, enough)


def _batch(recipe: Recipe) -> Iterator[Senseless]:
    batch, parts, devices = recipe.batch_size, recipe.accumulate, recipe.devices
    larger = {"batch_size": f"{parts * devices} or more"}
    if parts > batch:
        yield Senseless("accumulate must not be more than batch_size", {"accumulate": f"{batch} or less"}, larger)
    if parts * devices > batch:
        reason = "batch_size must be accumulate times devices, or more: each part on each device needs an image"
        yield Senseless(reason, {"batch_size": parts * devices})
    if recipe.compile and devices > 1:
        yield Senseless("compile works on one device", {"compile": False}, {"devices": 1})
    if batch % devices:
        reason = "batch_size must be a multiple of devices, which share it"
        yield Senseless(reason, {"batch_size": batch // devices * devices})
    if (recipe.mixup or recipe.cutmix) and batch < 2 * parts * devices:
        reason = "mixup and cutmix mix two images: batch_size must be twice accumulate times devices, or more"
        yield Senseless(reason, {"batch_size": 2 * parts * devices}, {"mixup": 0, "cutmix": 0})
    if devices == 1 and batch // parts == 1 and not trains_alone(recipe):
        yield _one_image(recipe)


def _one_image(recipe: Recipe) -> Senseless:
    """Also of a network that stays frozen to the end, and so would do: epochs may be raised on the way."""
    size, whole = find(recipe.network).trains_alone, recipe.accumulate == 1
    choices = [{"batch_size": f"{2 * recipe.accumulate} or more"}]
    if not whole:
        choices.append({"accumulate": f"{recipe.batch_size // 2} or less"})
    if (recipe.resize or size) >= size:
        choices.append({"image_size": f"{size} or more"})
    return Senseless(
        f"{recipe.network} ends in maps of one pixel at {recipe.image_size} px, in which batch normalisation finds no "
        f"variance where {'a batch' if whole else 'a part of a batch'} is one image",
        *choices,
    )


def _augmentation(recipe: Recipe) -> Iterator[Senseless]:
    size = recipe.image_size
    if recipe.crop_padding >= size:
        yield Senseless("crop_padding must fit in image_size", {"crop_padding": f"{size - 1} or less"})
    if recipe.cutout > size:
        yield Senseless("cutout must fit in image_size", {"cutout": f"{size} or less"})
    if recipe.random_resized_crop is not None:
        least, most = recipe.random_resized_crop
        if least > most:
            reason = "random_resized_crop is the least and then the most share of the area"
            yield Senseless(reason, {"random_resized_crop": [most, least]})
        if recipe.crop_padding:
            reason = "crop_padding and random_resized_crop are two ways to crop"
            yield Senseless(reason, {"crop_padding": 0}, {"random_resized_crop": None})
    if recipe.test_time_flip and not recipe.horizontal_flip and recipe.init is None:
        reason = "test_time_flip needs horizontal_flip: a network that never saw mirror images does not know them"
        yield Senseless(reason, {"horizontal_flip": True}, {"test_time_flip": False})


def _balance(recipe: Recipe) -> Iterator[Senseless]:
    if recipe.class_weights == "balanced" and recipe.sampling == "balanced":
        reason = "class_weights and sampling would both balance the classes, which makes rare ones count twice"
        yield Senseless(reason, {"class_weights": "none"}, {"sampling": "shuffle"})


def _start(recipe: Recipe) -> Iterator[Senseless]:
    fresh = {"init": None, "freeze_epochs": 0} if recipe.freeze_epochs else {"init": None}
    model = 'init={"model": "NAME"} starts from a model here, of the same network.'
    if recipe.freeze_epochs and recipe.init is None:
        reason = "freeze_epochs needs init: layers that nobody trained are worth nothing frozen"
        yield Senseless(reason, {"freeze_epochs": 0}, more=model)
    if recipe.freeze_epochs > recipe.epochs:
        yield _too_long("freeze_epochs", recipe.freeze_epochs, recipe.epochs)
    if recipe.init is None or recipe.init.weights is None:
        return
    entry, wanted = find(recipe.network), recipe.init.weights
    if not entry.weights:
        ready = ", ".join(name for name, each in NETWORKS.items() if each.weights)
        yield Senseless(f"{recipe.network} has no ready-made weights", fresh, more=f"{model} With weights: {ready}.")
    elif wanted not in entry.weights:
        near = nearest(wanted, entry.weights)
        reason = f"{recipe.network} has no weights {wanted!r}; the nearest is {near!r}"
        yield Senseless(reason, {"init": {"weights": near}})


def _choice(recipe: Recipe) -> Iterator[Senseless]:
    """Whether the dataset has a val split of its own is not known here."""
    without: dict[str, object] = {
        **({"keep": "last"} if recipe.keep == "best" else {}),
        **({"patience": None} if recipe.patience is not None else {}),
        **({"target_accuracy": None} if recipe.target_accuracy is not None else {}),
    }
    if without and recipe.val_fraction == 0:
        what = "keep=best goes" if recipe.keep == "best" else f"{' and '.join(without)} go{'es' * (len(without) == 1)}"
        reason = f"{what} by images that are held out, and val_fraction 0 holds none out"
        yield Senseless(reason, {"val_fraction": 0.05}, without)


def unlike(manifest: Manifest, recipe: Recipe) -> tuple[str, str] | None:
    """Why a training by this recipe cannot start from that model, and what would make it: message and hint; or None."""
    theirs, size = manifest.network, manifest.preprocessing
    if theirs.name == recipe.network and theirs.in_channels == recipe.channels:
        return None
    message = (
        f"the model is a {theirs.name} of {theirs.in_channels} channels, not a {recipe.network} of {recipe.channels}"
    )
    hint = (
        f"Override network with {theirs.name}, channels with {theirs.in_channels} and image_size with {size.height}, "
        f"resize with {size.resize}, mean with {list(size.mean)} and std with {list(size.std)}."
    )
    return message, hint
