"""A model version, loaded to compute: what the engine serves and what the trainer evaluates are this one path."""

import copy
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from models.manifest import MANIFEST, WEIGHTS, Manifest, ModelDamagedError, Preprocessing
from models.networks.registry import build


def resolve_device(name: str) -> torch.device:
    """`auto` is the first CUDA device if there is one, else the CPU. Raises ValueError for an absent device."""
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {name!r} cannot be used here: {str(error).splitlines()[0]}") from error
    return device


class Normalise:
    """Pixels uint8 (N, H, W, C) → network input float32 (N, C, H, W), channels last: `(x / 255 - mean) / std`."""

    def __init__(self, preprocessing: Preprocessing, device: torch.device) -> None:
        mean = torch.tensor(preprocessing.mean, dtype=torch.float64)
        std = torch.tensor(preprocessing.std, dtype=torch.float64)
        self.scale = (1 / (255 * std)).to(device, torch.float32)
        self.shift = (-mean / std).to(device, torch.float32)

    def __call__(self, images: Tensor) -> Tensor:
        scaled = torch.addcmul(self.shift, images.to(torch.float32), self.scale)
        return scaled.permute(0, 3, 1, 2)  # NHWC memory seen as NCHW is channels last already


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """What one forward pass gives: `logits` float32 (N, K) and `embedding` float32 (N, D), the last layer's input."""

    logits: npt.NDArray[np.float32]
    embedding: npt.NDArray[np.float32]


def split(network: nn.Module) -> tuple[nn.Module, nn.Linear]:
    """The network up to its embedding (N, D), and the linear layer that makes logits (N, K) of it.

    Both share the network's parameters; `head(body(x))` is `network(x)` for every network of the registry. Raises
    ValueError for one whose last layer is no linear layer of its own.
    """
    layers = [(name, layer) for name, layer in network.named_children() if isinstance(layer, nn.Linear)]
    if not layers:
        raise ValueError(f"{type(network).__name__} has no linear layer to end with")
    name, head = layers[-1]
    body = copy.copy(network)
    body._modules = {**network._modules, name: nn.Identity()}  # noqa: SLF001 - the copy's own table, not the network's
    return body, head


class Mirrored(nn.Module):
    """The mean of what `inner` gives for each image and for its mirror image: (N, C, H, W) → (N, D)."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor) -> Tensor:
        both: Tensor = self.inner(torch.cat([images, images.flip(-1)]))
        return both.view(2, -1, both.shape[1]).mean(0)


def with_flip(inner: nn.Module, *, test_time_flip: bool) -> nn.Module:
    """`inner`, asked about each image alone or, with a test-time flip, about both views of it."""
    return Mirrored(inner) if test_time_flip else inner


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """A loaded network in float32 and evaluation mode; `network` itself knows of no test-time flip."""

    manifest: Manifest
    network: nn.Module
    normalise: Normalise
    device: torch.device

    @property
    def whole(self) -> nn.Module:
        """From normalised images (N, C, H, W) to the model's logits (N, K), the test-time flip included."""
        return with_flip(self.network, test_time_flip=self.manifest.test_time_flip)

    @property
    def body_and_head(self) -> tuple[nn.Module, nn.Linear]:
        """`whole` up to the embedding (N, D), and the linear layer behind it: the mean goes through it unchanged."""
        body, head = split(self.network)
        return with_flip(body, test_time_flip=self.manifest.test_time_flip), head

    @torch.inference_mode()
    def logits(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Logits float32 (N, K) of prepared images uint8 (N, H, W, C), in one batch; ValueError for other shapes."""
        return _array(self.whole(self.input(images)))

    @torch.inference_mode()
    def outputs(self, images: npt.NDArray[np.uint8]) -> Outputs:
        """Logits and embedding of prepared images uint8 (N, H, W, C), in one batch; ValueError for other shapes."""
        return self._both(self.input(images))

    @torch.inference_mode()
    def outputs_of_normalised(self, batch: npt.NDArray[np.float32]) -> Outputs:
        """Logits and embedding of the network's own input, float32 (N, C, H, W), normalised by whoever made it."""
        tensor = torch.from_numpy(np.ascontiguousarray(batch, dtype=np.float32)).to(self.device)
        return self._both(tensor.to(memory_format=torch.channels_last))

    def input(self, images: npt.NDArray[np.uint8]) -> Tensor:
        """Images uint8 (N, H, W, C) as the network takes them: float32 (N, C, H, W). ValueError for other shapes."""
        want = self.manifest.preprocessing
        if images.dtype != np.uint8 or images.shape[1:] != (want.height, want.width, want.channels):
            raise ValueError(
                f"expected uint8 (N, {want.height}, {want.width}, {want.channels}), not {images.dtype} {images.shape}"
            )
        return self.normalise(torch.from_numpy(np.ascontiguousarray(images)).to(self.device))

    def _both(self, batch: Tensor) -> Outputs:
        body, head = self.body_and_head
        embedding = body(batch)
        return Outputs(logits=_array(head(embedding)), embedding=_array(embedding))


def _array(tensor: Tensor) -> npt.NDArray[np.float32]:
    array: npt.NDArray[np.float32] = tensor.float().cpu().numpy()
    return array


def read_weights(folder: Path, manifest: Manifest) -> bytes:
    """The weights' file, whole. Raises ModelDamagedError where there is none, or it is not the manifest's."""
    try:
        data = (folder / WEIGHTS).read_bytes()
    except FileNotFoundError as error:
        raise ModelDamagedError(f"{folder / WEIGHTS} is gone") from error
    digest = hashlib.sha256(data).hexdigest()
    if digest != manifest.weights_sha256:
        raise ModelDamagedError(f"{folder / WEIGHTS} has sha256 {digest}, model.json says {manifest.weights_sha256}")
    return data


def read_manifest(folder: Path) -> Manifest:
    """Raises ModelDamagedError where there is none, or it cannot be read."""
    try:
        return Manifest.read(folder)
    except FileNotFoundError as error:
        raise ModelDamagedError(f"{folder / MANIFEST} is gone") from error
    except ValidationError as error:
        raise ModelDamagedError(f"{folder / MANIFEST} is no manifest: {error.errors()[0]['msg']}") from error


def load(folder: Path, device: str = "auto") -> Runtime:
    """The model version in `folder`. Raises ModelDamagedError where a file is gone, or they do not belong together."""
    manifest = read_manifest(folder)
    data = read_weights(folder, manifest)
    place = resolve_device(device)
    torch.backends.cudnn.allow_tf32 = False  # the golden outputs are float32, on whatever device
    network = build(manifest.network)
    try:
        network.load_state_dict(load_tensors(data))
    except (RuntimeError, SafetensorError) as error:
        raise ModelDamagedError(f"the weights do not fit network {manifest.network.name}: {error}") from error
    network = network.eval().requires_grad_(requires_grad=False).to(place).to(memory_format=torch.channels_last)
    return Runtime(manifest=manifest, network=network, normalise=Normalise(manifest.preprocessing, place), device=place)


def probabilities(logits: npt.NDArray[np.floating], manifest: Manifest) -> npt.NDArray[np.float64]:
    """`softmax(logits / temperature)`, (N, K) → (N, K); the temperature is 1 where the model is not calibrated."""
    temperature = manifest.calibration.temperature if manifest.calibration else 1.0
    scaled = logits.astype(np.float64) / temperature
    exponentials = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    result: npt.NDArray[np.float64] = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return result
