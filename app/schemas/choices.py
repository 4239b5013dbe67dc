"""What a training can be asked with by name, recipes and networks, as answers show it."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from models.networks.registry import Entry


class RecipeBody(BaseModel):
    """A recipe: every training choice, each of which `overrides` may replace."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "mnist", "fields": {"network": "mnist/residual", "epochs": 15}}]}
    )

    name: str
    fields: dict[str, Any]


class RecipeFieldBody(BaseModel):
    """One of the choices that every recipe makes, and that `overrides` may replace."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "epochs",
                    "takes": "integer from 1 to 10,000",
                    "default": None,
                    "description": "How often every training image is seen.",
                }
            ]
        },
        from_attributes=True,
    )

    name: str
    takes: str = Field(description="The values that it may have.")
    default: str | None = Field(description="Of a recipe that does not say it; null: each recipe has its own.")
    description: str


class ArchitectureBody(BaseModel):
    """A network that recipes can name."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "cifar/resnet20",
                    "source": "He et al. 2015, section 4.2",
                    "channels": 3,
                    "image_size": 32,
                    "fixed_size": False,
                    "parameters": 269722,
                    "description": "20 layers of 3×3 convolutions.",
                    "weights": [],
                }
            ]
        }
    )

    name: str
    source: str
    channels: int
    image_size: int
    fixed_size: bool
    parameters: int
    description: str
    weights: list[str] = Field(description="Torchvision's names of weights that a recipe's `init` may take.")

    @classmethod
    def of(cls, entry: Entry) -> "ArchitectureBody":
        channels, size = entry.input
        return cls(
            name=entry.name,
            source=entry.source,
            channels=channels,
            image_size=size,
            fixed_size=entry.fixed_size,
            parameters=entry.parameters,
            description=entry.description,
            weights=list(entry.weights),
        )
