"""Which network a state dict is of, and how pictures are prepared for it where nobody said so."""

from collections.abc import Mapping
from functools import cache
from typing import Any, Literal

import torch
from pydantic import ValidationError

from models.manifest import NetworkSpec, Preprocessing
from models.networks.registry import NETWORKS, build, find
from worker.adopter.names import Fit, Shape, fit, sizes
from worker.job_process import JobRefused

# Of the networks that a file without head or first layer is compared with.
_CLASSES = 10
_CHANNELS: Literal[3] = 3
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CIFAR10 = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
_MNIST = (0.1307,), (0.3081,)


@cache
def shapes_of(spec: NetworkSpec) -> dict[str, Shape]:
    """The tensors that a network has, without one being made."""
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in build(spec).state_dict().items()}


def guess(found: Mapping[str, Shape], *, network: str | None) -> tuple[NetworkSpec, Fit]:
    """The network of the registry that fits a state dict (`found`: name → shape), or that was named.

    Raises JobRefused where it does not fit: with the first difference, and the nearest network.
    """
    classes, channels = sizes(found)
    if channels not in {None, 1, 3}:
        hint = "Networks here look at pictures with 1 or 3 channels."
        raise JobRefused("state_dict_mismatch", f"the first layer takes {channels} channels", hint)
    specs = {
        name: NetworkSpec(
            name=name, num_classes=max(classes or _CLASSES, 2), in_channels=1 if channels == 1 else _CHANNELS
        )
        for name in ([network] if network else NETWORKS)
    }
    fits = [fit(name, shapes_of(spec), found) for name, spec in specs.items()]
    best = min(fits, key=lambda each: each.differing)
    if not best.complete:
        raise _refusal(best, found, named=network is not None)
    return specs[best.network], best


def _refusal(best: Fit, found: Mapping[str, Shape], *, named: bool) -> JobRefused:
    message = f"the state dict is not one of {best.network}: {best.difference()}"
    hint = f"{best.network} is the nearest network, {best.differing} tensors differ; GET /v1/architectures lists all."
    if best.only_projections:
        kinds = "the file's shortcuts are projections (option B of He et al. 2015), here they are identities (option A)"
        message = f"the state dict is not one of {best.network}: {kinds}: {best.difference()}"
        hint = f"Neither can be made of the other: train {best.network} here, or the original anew with identities."
    if named:
        try:
            _, other = guess(found, network=None)
            hint = f"It fits {other.network}: send network={other.network}, or none."
        except JobRefused as error:
            hint = error.hint
    return JobRefused("state_dict_mismatch", message, hint)


def prepared(spec: NetworkSpec, asked: Mapping[str, Any] | None) -> Preprocessing:
    """How images are prepared: as the network's family is used to, with what was asked for in its place.

    Raises JobRefused.
    """
    entry = find(spec.name)
    size = entry.input[1]
    family = spec.name.partition("/")[0]
    mean, std = {"torchvision": _IMAGENET, "cifar": _CIFAR10, "mnist": _MNIST}.get(family, ((0.0,), (1.0,)))
    if len(mean) != spec.in_channels:
        mean, std = (sum(mean) / len(mean),) * spec.in_channels, (sum(std) / len(std),) * spec.in_channels
    usual = {
        "channels": spec.in_channels,
        "height": size,
        "width": size,
        "resize": 256 if family == "torchvision" else size,
        "mean": mean,
        "std": std,
    }
    wanted = {**usual, **(asked or {})}
    if asked and "resize" not in asked and {"height", "width"} & set(asked):
        wanted["resize"] = max(wanted["height"], wanted["width"])
    try:
        preprocessing = Preprocessing.model_validate(wanted)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise JobRefused("bad_preprocessing", f"preprocessing: {place} {first['msg']}".strip(), _FIELDS) from error
    if preprocessing.channels != spec.in_channels:
        message = f"preprocessing: the network takes {spec.in_channels} channels, not {preprocessing.channels}"
        raise JobRefused("bad_preprocessing", message, "Leave `channels` out.")
    if entry.fixed_size and (preprocessing.height, preprocessing.width) != (size, size):
        raise JobRefused("bad_preprocessing", f"{spec.name} takes {size} × {size} pixels alone", "Leave the size out.")
    return preprocessing


_FIELDS = f"Fields: {', '.join(Preprocessing.model_fields)}."


def labels(spec: NetworkSpec, asked: tuple[str, ...] | None) -> tuple[tuple[str, ...], str | None]:
    """The classes' names, and a warning where they are a guess. Raises JobRefused where there are too many or few."""
    count = spec.num_classes
    if asked is not None:
        if len(asked) != count:
            message = f"{len(asked)} classes were named, and the network's last layer gives {count}"
            raise JobRefused("classes_differ", message, f"Name {count} classes, in the order of the outputs.")
        return asked, None
    if count == 1000 and spec.name.startswith("torchvision/"):
        from torchvision.models import ResNet18_Weights  # noqa: PLC0415 - where its names are needed

        return tuple(ResNet18_Weights.IMAGENET1K_V1.meta["categories"]), "1,000 classes: taken to be ImageNet's"
    return tuple(f"class {index}" for index in range(count)), "no classes were named: they are called by their numbers"
