"""What a recipe is: every choice of a training run, each with its meaning and its bounds."""

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from models.networks.registry import find
from models.recipes.sense import nonsense, trains_alone


class Init(BaseModel):
    """The weights that a training starts from: one of the two. The last layer is a new one where the classes differ."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: str | None = Field(None, max_length=80, description="Torchvision's name, such as IMAGENET1K_V2.")
    model: str | None = Field(None, max_length=200, description="A model here: name, name@3 or name@alias.")

    @model_validator(mode="after")
    def _one(self) -> "Init":
        if (self.weights is None) == (self.model is None):
            raise ValueError('init is {"weights": "IMAGENET1K_V2"} or {"model": "name@3"}, one of the two')
        return self

    @model_serializer(mode="wrap")
    def _chosen(self, inner: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in inner(self).items() if value is not None}


class Recipe(BaseModel):
    """Every choice of a training run. A batch is a step; the learning rate changes with every step."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    network: str = Field(description="A network's name, such as cifar/resnet20.")
    init: Init | None = Field(
        None,
        description='{"weights": "IMAGENET1K_V2"}, {"model": "name@3"}; null = fresh weights, drawn from the seed.',
    )
    freeze_epochs: float = Field(
        0.0,
        ge=0,
        description="So long the last layer alone learns; then all of them. Belongs to init. In proportion less where "
        "an override names fewer epochs alone.",
    )

    channels: Literal[1, 3] = Field(description="Channels of the network's input; images are converted.")
    image_size: int = Field(ge=8, le=512, description="Height and width of the network's input, in pixels.")
    resize: int | None = Field(
        None,
        ge=8,
        le=1024,
        description="The shorter side before the crop; null = image_size. It follows image_size in proportion where an "
        "override names that one alone.",
    )
    mean: tuple[Annotated[float, Field(ge=0, le=1)], ...] | None = Field(
        None, description="A value a channel, of pixels scaled to 0…1; null = measured on the training data."
    )
    std: tuple[Annotated[float, Field(gt=0, le=1)], ...] | None = Field(None, description="Likewise.")

    epochs: int = Field(ge=1, le=10_000, description="Passes over the training images.")
    batch_size: int = Field(ge=1, le=8192, description="Images in a step.")
    optimizer: Literal["sgd", "nesterov", "adamw"] = Field("nesterov", description="What turns gradients into steps.")
    lr: float = Field(
        gt=0, le=100, description="The highest learning rate of the schedule; of adamw one that is named, 0.1 or less."
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="Of sgd and nesterov; the first beta of adamw.")
    weight_decay: float = Field(5e-4, ge=0, le=1, description="Of weights; biases and normalisation have none.")
    schedule: Literal["constant", "step", "cosine", "one_cycle"] = Field(
        "one_cycle",
        description="After the warm-up: stay, or fall: in steps, by half a cosine to 0, in a line to 0. An override "
        "with another one than step empties step_epochs.",
    )
    step_epochs: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (),
        description="Of the schedule step: the epochs after which the learning rate is multiplied by step_factor. They "
        "follow epochs in proportion where an override names those alone.",
    )
    step_factor: float = Field(0.1, gt=0, lt=1, description="Of the schedule step; see step_epochs.")
    warmup_epochs: float = Field(
        0.0,
        ge=0,
        description="The learning rate rises in a line over these epochs. In proportion less where an override names "
        "fewer epochs alone; 0.3 of epochs where one names one_cycle and the recipe has none.",
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="Share of each target that is spread evenly over all classes."
    )
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
    random_resized_crop: tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(gt=0, le=1)]] | None = Field(
        None,
        description="Least and most share of an image's area that a random crop takes, with sides in a ratio of 3:4 to "
        "4:3, scaled bilinearly to image_size; null = none. Crops are taken from the square of `resize` pixels.",
    )
    horizontal_flip: bool = Field(False, description="Mirror every second image, at random.")
    cutout: int = Field(0, ge=0, le=512, description="Side of a random square set to the mean, in pixels; 0 = none.")

    erasing: float = Field(0.0, ge=0, le=1, description="Share of images with a random rectangle set to the mean.")
    auto_augment: Literal["none", "trivial", "rand"] = Field(
        "none", description="TrivialAugment or RandAugment: random shears, shifts, rotations, colours and contrasts."
    )
    mixup: float = Field(0.0, ge=0, le=10, description="Alpha of mixup: images and labels in pairs; 0 = none.")
    cutmix: float = Field(0.0, ge=0, le=10, description="Alpha of CutMix: a part of another image; 0 = none.")

    test_time_flip: bool = Field(
        False,
        description="The model answers with the mean over an image and its mirror image, in validation, evaluation and "
        "serving: more accurate, and twice the computing. Belongs to horizontal_flip, or to init.",
    )

    keep: Literal["best", "last"] = Field(
        "best",
        description="The epoch that is kept: of the best val top-1, and of several such that of the least val loss; "
        "or the last. best where an override names patience alone.",
    )
    precision: Literal["fp32", "tf32", "bf16"] = Field(
        "fp32",
        description="Of training; evaluation is fp32. tf32: products of 10-bit fractions where the device has them, "
        "else the same as fp32; bf16: autocast.",
    )
    channels_last: bool = Field(True, description="Pixels' channels lie side by side in memory: most often faster.")
    compile: bool = Field(False, description="Train through torch.compile; needs a C++ compiler, else runs without.")
    deterministic: bool = Field(False, description="Only algorithms that repeat bit by bit (always so on a CPU).")
    seed: int = Field(
        0, ge=0, lt=2**63, description="What all randomness is drawn from: fresh weights, order, augmentation."
    )
    loader: Literal["auto", "memory", "stream"] = Field(
        "auto",
        description="Where training images lie: in memory, or read as they are needed; the same numbers either way.",
    )
    workers: int | None = Field(
        None, ge=0, le=64, description="Threads that prepare streamed images ahead; 0 = none, null = one for each core."
    )
    devices: int = Field(1, ge=1, le=64, description="Devices that share each batch, on one machine.")

    val_fraction: float = Field(
        0.05,
        ge=0,
        lt=0.9,
        description="Share of the training data held out where the dataset has no val split. 0 = none: the last epoch "
        "is kept, and the model has no temperature and is not served in int8.",
    )
    max_seconds: float | None = Field(
        None,
        gt=0,
        description="Training stops when the run has taken this long, loading and validations included; evaluation "
        "comes on top.",
    )
    patience: int | None = Field(
        None,
        ge=1,
        description="Epochs in a row whose val top-1 is no higher than the best before, after which training stops; "
        "the loss does not count.",
    )
    target_accuracy: float | None = Field(None, gt=0, le=1, description="Training stops at this val top-1.")
    checkpoint_seconds: float = Field(60.0, ge=0, description="Time between checkpoints; 0 = after every step.")

    @property
    def canvas(self) -> int:
        """Height and width of a training image as it is kept: random crops are taken from more than they become."""
        return self.image_size if self.random_resized_crop is None else self.resize or self.image_size

    def parts(self, batch: int) -> int:
        """Parts that a batch of so many images is computed in: `accumulate`, or fewer where those would be too small.

        Each has an image for each device, and two where the network does not learn from one.
        """
        least = max(self.devices, 1 if trains_alone(self) else 2)
        return max(min(self.accumulate, batch // least), 1)

    @field_validator("network")
    @classmethod
    def _known(cls, name: str) -> str:
        return find(name).name

    @model_validator(mode="after")
    def _consistent(self) -> "Recipe":
        if (found := nonsense(self)) is not None:
            raise found
        return self
