"""What makes no sense about a recipe although each field alone is right: refused before anything is queued."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from models.nearest import nearest
from models.networks.registry import find

if TYPE_CHECKING:
    from models.manifest import Manifest
    from models.recipes.recipe import Recipe


class Senseless(ValueError):
    """Fields that do not go together. `hint` says what would do."""

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.hint = hint or "Override the other field as well; `resnetd recipes` and GET /v1/recipes show the recipe's."


def nonsense(recipe: Recipe) -> Senseless | None:
    """The first reason why the fields do not go together, or None."""
    checks = (_input, _schedule, _batch, _augmentation, _balance, _start)
    found = next((reason for check in checks for reason in check(recipe)), None)
    return Senseless(found) if isinstance(found, str) else found


def trains_alone(recipe: Recipe) -> bool:
    """Whether the network learns from one image by itself, at the recipe's size."""
    return recipe.image_size >= find(recipe.network).trains_alone


def _input(recipe: Recipe) -> Iterator[str]:
    entry = find(recipe.network)
    if entry.fixed_size and recipe.image_size != entry.input[1]:
        yield f"image_size must be {entry.input[1]} for network {recipe.network}"
    if recipe.resize is not None and recipe.resize < recipe.image_size:
        yield "resize must be at least image_size"
    for name, values in (("mean", recipe.mean), ("std", recipe.std)):
        if values is not None and len(values) != recipe.channels:
            yield f"{name} needs {recipe.channels} values, one a channel"


def _schedule(recipe: Recipe) -> Iterator[str | Senseless]:
    if recipe.warmup_epochs > recipe.epochs:
        yield "warmup_epochs must not be more than epochs"
    if (recipe.schedule == "step") != bool(recipe.step_epochs):
        yield "step_epochs belongs to the schedule step, and only to it"
    if list(recipe.step_epochs) != sorted(set(recipe.step_epochs)):
        yield "step_epochs must rise, each once"
    if recipe.step_epochs and recipe.step_epochs[-1] >= recipe.epochs:
        parts = len(recipe.step_epochs) + 1
        even = [round(recipe.epochs * part / parts, 2) for part in range(1, parts)]
        yield Senseless(
            f"step_epochs must lie before the end of {recipe.epochs} epochs: at {recipe.step_epochs[-1]:g} the "
            "learning rate would never fall",
            f"Set step_epochs={even}.",
        )
    if recipe.optimizer == "nesterov" and recipe.momentum == 0:
        yield "nesterov needs a momentum above 0; without one, the optimizer is sgd"


def _batch(recipe: Recipe) -> Iterator[str | Senseless]:
    if recipe.accumulate > recipe.batch_size:
        yield "accumulate must not be more than batch_size"
    if recipe.accumulate * recipe.devices > recipe.batch_size:
        yield "batch_size must be accumulate times devices, or more: each part on each device needs an image"
    if recipe.compile and recipe.devices > 1:
        yield "compile works on one device; set compile to false, or devices to 1"
    if recipe.batch_size % recipe.devices:
        yield "batch_size must be a multiple of devices, which share it"
    if (recipe.mixup or recipe.cutmix) and recipe.batch_size < 2 * recipe.accumulate * recipe.devices:
        yield "mixup and cutmix mix two images: batch_size must be twice accumulate times devices, or more"
    if recipe.devices == 1 and recipe.batch_size // recipe.accumulate == 1 and not trains_alone(recipe):
        yield _one_image(recipe)


def _one_image(recipe: Recipe) -> Senseless:
    """Also of a network that stays frozen to the end, and so would do: epochs may be raised on the way."""
    size, whole = find(recipe.network).trains_alone, recipe.accumulate == 1
    choices = [f"batch_size={2 * recipe.accumulate} or more"]
    if not whole:
        choices.append(f"accumulate={recipe.batch_size // 2} or less")
    if (recipe.resize or size) >= size:
        choices.append(f"image_size={size} or more")
    return Senseless(
        f"{recipe.network} ends in maps of one pixel at {recipe.image_size} px, in which batch normalisation finds no "
        f"variance where {'a batch' if whole else 'a part of a batch'} is one image",
        f"Set {', or '.join(choices)}.",
    )


def _augmentation(recipe: Recipe) -> Iterator[str]:
    if recipe.crop_padding >= recipe.image_size or recipe.cutout > recipe.image_size:
        yield "crop_padding and cutout must fit in image_size"
    if recipe.random_resized_crop is not None:
        least, most = recipe.random_resized_crop
        if least > most:
            yield "random_resized_crop is the least and then the most share of the area, such as [0.08, 1.0]"
        if recipe.crop_padding:
            yield "crop_padding and random_resized_crop are two ways to crop; set one of them to 0 or null"
    if recipe.test_time_flip and not recipe.horizontal_flip and recipe.init is None:
        yield "test_time_flip needs horizontal_flip: a network that never saw mirror images does not know them"


def _balance(recipe: Recipe) -> Iterator[str]:
    if recipe.class_weights == "balanced" and recipe.sampling == "balanced":
        yield "class_weights and sampling would both balance the classes, which makes rare ones count twice; set one"


def _start(recipe: Recipe) -> Iterator[str]:
    if recipe.freeze_epochs and recipe.init is None:
        yield "freeze_epochs needs init: layers that nobody trained are worth nothing frozen"
    if recipe.freeze_epochs > recipe.epochs:
        yield "freeze_epochs must not be more than epochs"
    if recipe.init is None or recipe.init.weights is None:
        return
    entry, wanted = find(recipe.network), recipe.init.weights
    if not entry.weights:
        yield f"{recipe.network} has no ready-made weights; torchvision's networks have, others start from a model"
    elif wanted not in entry.weights:
        yield f"{recipe.network} has no weights {wanted!r}; the nearest is {nearest(wanted, entry.weights)!r}"
    if recipe.channels != entry.input[0]:
        yield f"the weights {wanted} are for {entry.input[0]} channels; grey images are converted where channels is 3"


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
