"""The Open Inference Protocol's shapes, version 2, with Triton's extensions for binary tensors and classification."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from app.schemas.statistics_v2 import StatisticsBody
from store.version import code_version

ERROR_EXAMPLE: dict[str, Any] = {"error": "there is no model 'cat'. models here: cifar10-resnet20"}
METADATA_EXAMPLE: dict[str, Any] = {
    "name": "cifar10-resnet20",
    "versions": ["1"],
    "platform": "pytorch_safetensors",
    "inputs": [
        {"name": "image", "datatype": "BYTES", "shape": [-1, 1]},
        {"name": "pixels", "datatype": "UINT8", "shape": [-1, 32, 32, 3]},
        {"name": "normalised", "datatype": "FP32", "shape": [-1, 3, 32, 32]},
    ],
    "outputs": [
        {"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]},
        {"name": "logits", "datatype": "FP32", "shape": [-1, 10]},
        {"name": "embedding", "datatype": "FP32", "shape": [-1, 64]},
    ],
}
REQUEST_EXAMPLE: dict[str, Any] = {
    "id": "42",
    "inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": ["iVBORw0KGgo…"]}],
    "outputs": [{"name": "probabilities", "parameters": {"classification": 2}}],
}
ANSWER_EXAMPLE: dict[str, Any] = {
    "model_name": "cifar10-resnet20",
    "model_version": "1",
    "id": "42",
    "outputs": [
        {
            "name": "probabilities",
            "datatype": "BYTES",
            "shape": [1, 2],
            "data": ["0.934000:3:cat", "0.041000:5:dog"],
        }
    ],
}
CONFIG_EXAMPLE: dict[str, Any] = {
    "name": "cifar10-resnet20",
    "platform": "pytorch_safetensors",
    "backend": "resnetd",
    "max_batch_size": 256,
    "input": [
        {"name": "image", "data_type": "TYPE_STRING", "dims": [1], "format": "FORMAT_NONE", "optional": True},
        {"name": "pixels", "data_type": "TYPE_UINT8", "dims": [32, 32, 3], "format": "FORMAT_NHWC", "optional": True},
        {
            "name": "normalised",
            "data_type": "TYPE_FP32",
            "dims": [3, 32, 32],
            "format": "FORMAT_NCHW",
            "optional": True,
        },
    ],
    "output": [
        {"name": "probabilities", "data_type": "TYPE_FP32", "dims": [10]},
        {"name": "logits", "data_type": "TYPE_FP32", "dims": [10]},
        {"name": "embedding", "data_type": "TYPE_FP32", "dims": [64]},
    ],
}
INDEX_EXAMPLE: dict[str, Any] = {"name": "cifar10-resnet20", "version": "1", "state": "READY", "reason": ""}
SERVER_EXAMPLE: dict[str, Any] = {"name": "resnetd", "version": code_version(), "extensions": ["classification"]}

Parameters = dict[str, Any]
Count = Annotated[int, Field(ge=0, le=2**31)]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class InputTensor(_Strict):
    """A tensor of a request: `data` in JSON, or `binary_data_size` among the parameters."""

    name: str = Field(max_length=100)
    shape: list[Count] = Field(max_length=8)
    datatype: str = Field(max_length=20)
    parameters: Parameters = {}
    data: Any = None


class AskedOutput(_Strict):
    """An output that the request asks for; `classification` and `binary_data` are parameters."""

    name: str = Field(max_length=100)
    parameters: Parameters = {}


class InferRequest(_Strict):
    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra={"examples": [REQUEST_EXAMPLE]})

    id: str | None = Field(None, max_length=1000)
    model_name: str | None = Field(None, max_length=200, description="As in the address; KServe's client sends it.")
    model_version: Annotated[str, Field(max_length=100)] | int | None = Field(None, description="Likewise.")
    parameters: Parameters = {}
    inputs: list[InputTensor] = Field(min_length=1, max_length=8)
    outputs: list[AskedOutput] | None = Field(None, max_length=8)


class ErrorBody(BaseModel):
    """The body of every error of the protocol: what is wrong, and what to do."""

    model_config = ConfigDict(json_schema_extra={"examples": [ERROR_EXAMPLE]})

    error: str


class ServerBody(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [SERVER_EXAMPLE]})

    name: str
    version: str
    extensions: list[str]


class LiveBody(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"live": True}]})

    live: bool


class ReadyBody(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"ready": True}]})

    ready: bool


class ModelReadyBody(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "cifar10-resnet20", "ready": True}]})

    name: str
    ready: bool


class MetadataTensor(BaseModel):
    """The first dimension, -1, counts the images."""

    name: str
    datatype: str
    shape: list[int]


class MetadataBody(BaseModel):
    """`inputs` are three ways to send images; a request uses one of them."""

    model_config = ConfigDict(json_schema_extra={"examples": [METADATA_EXAMPLE]})

    name: str
    versions: list[str]
    platform: str
    inputs: list[MetadataTensor]
    outputs: list[MetadataTensor]


class ConfigOutput(BaseModel):
    """`dims` are of one image."""

    name: str
    data_type: str
    dims: list[int]


class ConfigInput(ConfigOutput):
    """`optional`: a request has one of the inputs."""

    format: str
    optional: bool


class ConfigBody(BaseModel):
    """The metadata as Triton's ModelConfig. `max_batch_size`: the most images in one request."""

    model_config = ConfigDict(json_schema_extra={"examples": [CONFIG_EXAMPLE]})

    name: str
    platform: str
    backend: str
    max_batch_size: int
    input: list[ConfigInput]
    output: list[ConfigOutput]


class OutputTensor(BaseModel):
    name: str
    shape: list[int]
    datatype: str
    parameters: Parameters | None = None
    data: list[Any] | None = None


class InferAnswer(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [ANSWER_EXAMPLE]})

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[OutputTensor]


class IndexRequest(_Strict):
    """`ready`: those models alone that answer now."""

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra={"examples": [{"ready": True}]})

    ready: bool = False


class IndexEntry(BaseModel):
    """`state`: READY, LOADING, UNLOADING or UNAVAILABLE, for which `reason` says why."""

    model_config = ConfigDict(json_schema_extra={"examples": [INDEX_EXAMPLE]})

    name: str
    version: str
    state: str
    reason: str


class RepositoryRequest(_Strict):
    """What `load` and `unload` may be asked with: nothing that this server would follow."""

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra={"examples": [{"parameters": {}}]})

    parameters: Parameters = {}


DESCRIBED = (InferRequest, IndexRequest, RepositoryRequest)  # bodies that the routes read by hand
ANSWERS = (
    ErrorBody,
    ServerBody,
    LiveBody,
    ReadyBody,
    ModelReadyBody,
    MetadataBody,
    ConfigBody,
    StatisticsBody,
    InferAnswer,
    IndexEntry,
)
