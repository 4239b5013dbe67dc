"""Recipes: named, complete sets of training choices that a request may override field by field. Without torch."""

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from models.networks.registry import NETWORKS, find


class RecipeError(ValueError):
    """A recipe or an override that does not exist or does not fit. `field` names it; `hint` says what would do."""

    def __init__(self, message: str, *, field: str, hint: str) -> None:
        super().__init__(message)
        self.field = field
        self.hint = hint


class Recipe(BaseModel):
    """Every choice of a training run. A batch is a step; the learning rate changes with every step."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    network: str = Field(description="A name of the registry, such as cifar/resnet20.")

    channels: Literal[1, 3] = Field(description="Channels of the network's input; images are converted.")
    image_size: int = Field(ge=8, le=512, description="Height and width of the network's input, in pixels.")
    resize: int | None = Field(None, ge=8, le=1024, description="The shorter side before the crop; null = image_size.")
    mean: tuple[float, ...] | None = Field(None, description="A value a channel; null = measured on the training data.")
    std: tuple[Annotated[float, Field(gt=0)], ...] | None = Field(None, description="Likewise.")

    epochs: int = Field(ge=1, le=10_000)
    batch_size: int = Field(ge=1, le=8192)
    optimizer: Literal["sgd", "nesterov", "adamw"] = "nesterov"
    lr: float = Field(gt=0, le=100, description="The highest learning rate of the schedule.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Of sgd and nesterov; the first beta of adamw.")
    weight_decay: float = Field(5e-4, ge=0, le=1, description="Of weights; biases and normalisation have none.")
    schedule: Literal["constant", "step", "cosine", "one_cycle"] = Field(
        "one_cycle", description="After the warm-up: stay, or fall: in steps, by half a cosine to 0, in a line to 0."
    )
    step_epochs: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (), description="Of the schedule step: the epochs after which the learning rate is multiplied by step_factor."
    )
    step_factor: float = Field(0.1, gt=0, lt=1)
    warmup_epochs: float = Field(0.0, ge=0, description="The learning rate rises in a line over these epochs.")
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    clip_norm: float | None = Field(None, gt=0, description="Largest norm of a step's gradient; null = any.")
    accumulate: int = Field(
        1, ge=1, le=1024, description="Parts that a batch is computed in, for less memory; each has its own statistics."
    )
    class_weights: Literal["none", "balanced"] = Field("none", description="Rare classes count more in the loss.")
    sampling: Literal["shuffle", "balanced"] = Field(
        "shuffle", description="Each image once an epoch, or each class as often as the others."
    )
    ema_decay: float | None = Field(
        None, gt=0, lt=1, description="A step's decay of the averaged weights; null = none."
    )

    crop_padding: int = Field(0, ge=0, le=64, description="Random shift by up to this many pixels, edges reflected.")
    horizontal_flip: bool = Field(False, description="Mirror every second image, at random.")
    cutout: int = Field(0, ge=0, le=512, description="Side of a random square set to the mean, in pixels; 0 = none.")

    erasing: float = Field(0.0, ge=0, le=1, description="Share of images with a random rectangle set to the mean.")
    auto_augment: Literal["none", "trivial", "rand"] = Field(
        "none", description="TrivialAugment or RandAugment: random shears, shifts, rotations, colours and contrasts."
    )
    mixup: float = Field(0.0, ge=0, le=10, description="Alpha of mixup: images and labels in pairs; 0 = none.")
    cutmix: float = Field(0.0, ge=0, le=10, description="Alpha of CutMix: a part of another image; 0 = none.")

    keep: Literal["best", "last"] = Field(
        "best", description="The epoch that is kept: of the best val top-1, or the last."
    )
    precision: Literal["fp32", "bf16"] = Field("fp32", description="bf16 = autocast in training; evaluation is fp32.")
    compile: bool = Field(False, description="Train through torch.compile; needs a C++ compiler, else runs without.")
    deterministic: bool = Field(False, description="Only algorithms that repeat bit by bit (always so on a CPU).")
    seed: int = Field(0, ge=0, lt=2**63)

    val_fraction: float = Field(
        0.05, gt=0, lt=0.9, description="Share of the training data held out where the dataset has no val split."
    )
    max_seconds: float | None = Field(
        None, gt=0, description="Training stops after this time, evaluation comes on top."
    )
    patience: int | None = Field(
        None, ge=1, description="Epochs without a better val top-1 after which training stops."
    )
    target_accuracy: float | None = Field(None, gt=0, le=1, description="Training stops at this val top-1.")
    checkpoint_seconds: float = Field(60.0, ge=0, description="Time between checkpoints; 0 = after every step.")

    @field_validator("network")
    @classmethod
    def _known(cls, name: str) -> str:
        return find(name).name

    @model_validator(mode="after")
    def _consistent(self) -> "Recipe":
        entry = find(self.network)
        if entry.fixed_size and self.image_size != entry.input[1]:
            raise ValueError(f"image_size must be {entry.input[1]} for network {self.network}")
        if self.resize is not None and self.resize < self.image_size:
            raise ValueError("resize must be at least image_size")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and len(values) != self.channels:
                raise ValueError(f"{name} needs {self.channels} values, one a channel")
        if self.warmup_epochs > self.epochs:
            raise ValueError("warmup_epochs must not be more than epochs")
        if (self.schedule == "step") != bool(self.step_epochs):
            raise ValueError("step_epochs belongs to the schedule step, and only to it")
        if self.accumulate > self.batch_size:
            raise ValueError("accumulate must not be more than batch_size")
        if self.crop_padding >= self.image_size or self.cutout > self.image_size:
            raise ValueError("crop_padding and cutout must fit in image_size")
        return self


RECIPES: dict[str, Recipe] = {
    "cifar10-resnet20": Recipe(
        network="cifar/resnet20",
        channels=3,
        image_size=32,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
        epochs=40,
        batch_size=128,
        lr=0.2,
        warmup_epochs=5,
        ema_decay=0.998,
        crop_padding=4,
        horizontal_flip=True,
        keep="last",
        precision="bf16",
        val_fraction=0.02,
    ),
    "fashion-mnist-small": Recipe(
        network="cifar/resnet8",
        channels=1,
        image_size=28,
        mean=(0.2860,),
        std=(0.3530,),
        epochs=8,
        batch_size=128,
        lr=0.2,
        warmup_epochs=1.5,
        ema_decay=0.995,
        crop_padding=2,
        horizontal_flip=True,
        precision="bf16",
        val_fraction=0.03,
    ),
    "d2l-fashion-mnist": Recipe(  # as the book sets it: no augmentation, no normalisation, no decay, no schedule
        network="d2l/resnet18",
        channels=1,
        image_size=96,
        mean=(0.0,),
        std=(1.0,),
        epochs=10,
        batch_size=256,
        optimizer="sgd",
        lr=0.05,
        momentum=0.0,
        weight_decay=0.0,
        schedule="constant",
        keep="last",
        val_fraction=0.02,
    ),
    "mnist": Recipe(
        network="mnist/residual",
        channels=1,
        image_size=28,
        mean=(0.1307,),
        std=(0.3081,),
        epochs=15,
        batch_size=128,
        lr=0.05,
        warmup_epochs=2,
        ema_decay=0.998,
        crop_padding=2,
        val_fraction=0.05,
    ),
}


def _nearest(name: str, known: list[str]) -> str:
    return difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]


def resolve(recipe_name: str, overrides: Mapping[str, Any]) -> Recipe:
    """The recipe with the overrides applied. Raises RecipeError, which names the field and the nearest valid name."""
    if recipe_name not in RECIPES:
        near = _nearest(recipe_name, list(RECIPES))
        raise RecipeError(
            f"no recipe is called {recipe_name!r}; the nearest is {near!r}",
            field="recipe",
            hint=f"Recipes: {', '.join(RECIPES)}.",
        )
    known = list(Recipe.model_fields)
    for name in overrides:
        if name not in known:
            raise RecipeError(
                f"a recipe has no field {name!r}; the nearest is {_nearest(name, known)!r}",
                field=f"overrides.{name}",
                hint=f"Fields: {', '.join(known)}.",
            )
    try:
        return Recipe.model_validate({**RECIPES[recipe_name].model_dump(), **overrides})
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        field = ".".join(["overrides", *(str(part) for part in first["loc"])])
        message = first["msg"].removeprefix("Value error, ")
        raise RecipeError(f"{field}: {message}", field=field, hint=_meaning(first["loc"])) from error


def _meaning(location: tuple[int | str, ...]) -> str:
    """What the field means, for the reader of an error."""
    if location and location[0] == "network":
        return f"Networks: {', '.join(NETWORKS)}."
    if not location:  # it is about several fields
        return "Override the other field as well; `resnetd recipes` and GET /v1/recipes show what the recipe has."
    return Recipe.model_fields[str(location[0])].description or "GET /v1/recipes shows a value that does."
