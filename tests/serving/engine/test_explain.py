"""Grad-CAM: what it computes, for every kind of network, and how it is drawn."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from serving_toys import picture

from app.engine.explain import grad_cam, image_of, overlay, png
from models.manifest import Manifest, NetworkSpec, Preprocessing
from models.networks.registry import find
from models.runtime import Normalise, Runtime, load, split


def pixels_of(seed: int) -> np.ndarray:
    return np.array(Image.open(BytesIO(picture(seed))))


@pytest.fixture(scope="module")
def runtime(artifacts: list[Path]) -> Runtime:
    return load(artifacts[0], "cpu")


def fresh(runtime: Runtime, name: str, size: int) -> Runtime:
    """The network `name` with random weights, for images of that size."""
    channels = find(name).input[0]
    to = Preprocessing(
        channels=channels, height=size, width=size, resize=size, mean=(0.5,) * channels, std=(0.25,) * channels
    )
    spec = NetworkSpec(name=name, num_classes=3, in_channels=channels)
    manifest: Manifest = runtime.manifest.model_copy(update={"network": spec, "preprocessing": to})
    torch.manual_seed(0)
    network = find(name).build(num_classes=3, in_channels=channels).eval().requires_grad_(requires_grad=False)
    device = torch.device("cpu")
    return Runtime(manifest=manifest, network=network, normalise=Normalise(to, device), device=device)


def test_before_an_average_and_a_linear_layer_it_is_the_class_activation_map(runtime: Runtime) -> None:
    """Selvaraju et al. 2017, section 3.1: there the gradients' weights are the linear layer's own, but for a factor."""
    seen: list[torch.Tensor] = []
    hook = runtime.network.get_submodule("stage3").register_forward_hook(lambda _, __, out: seen.append(out))
    for index in range(3):
        runtime.logits(pixels_of(index)[None])
    hook.remove()
    for index, activations in enumerate(seen):
        pixels = pixels_of(index)
        weight = runtime.network.get_submodule("fc").weight[index]
        cam = torch.einsum("c,chw->hw", weight, activations[0]).relu().numpy()
        found = grad_cam(runtime, pixels, class_index=index)
        assert found.class_index == index
        assert found.heat.shape == (8, 8)
        np.testing.assert_allclose(found.heat, cam / max(cam.max(), 1e-30), atol=1e-4)
        np.testing.assert_allclose(found.logits, runtime.logits(pixels[None])[0], atol=1e-4)


@pytest.mark.parametrize(
    ("name", "size", "cells"),
    [
        ("cifar/resnet50", 24, (3, 3)),
        ("torchvision/resnet50", 64, (2, 2)),
        ("torchvision/resnext50_32x4d", 64, (2, 2)),
    ],
)
def test_so_it_is_for_bottlenecks_with_and_without_groups(
    runtime: Runtime, name: str, size: int, cells: tuple[int, int]
) -> None:
    mine = fresh(runtime, name, size)
    seen: list[torch.Tensor] = []
    hook = mine.network.get_submodule("layer4").register_forward_hook(lambda _, __, out: seen.append(out))
    pixels = np.random.default_rng(3).integers(0, 256, (size, size, 3), dtype=np.uint8)
    mine.logits(pixels[None])
    hook.remove()
    weights = split(mine.network)[1].weight
    assert weights.shape == (3, 2048)
    maps = torch.einsum("kc,chw->khw", weights, seen[0][0]).relu().numpy()
    assert sum(cam.min() < 0.9 * cam.max() for cam in maps) >= 1  # one is a picture of something
    for index, cam in enumerate(maps):
        found = grad_cam(mine, pixels, class_index=index)
        assert found.heat.shape == cells
        np.testing.assert_allclose(found.heat, cam / max(cam.max(), 1e-30), atol=1e-4)


def test_without_a_class_it_explains_the_likeliest(runtime: Runtime) -> None:
    pixels = pixels_of(5)
    likeliest = int(runtime.logits(pixels[None])[0].argmax())
    found = grad_cam(runtime, pixels, class_index=None)
    assert found.class_index == likeliest
    np.testing.assert_array_equal(found.heat, grad_cam(runtime, pixels, class_index=likeliest).heat)
    with pytest.raises(ValueError, match="class_index 3 is none of the model's: it has 0 to 2"):
        grad_cam(runtime, pixels, class_index=3)


@pytest.mark.parametrize(
    ("name", "size", "cells"),
    [
        ("cifar/resnet9", 32, (4, 4)),
        ("cifar/resnet18", 32, (4, 4)),
        ("mnist/residual", 28, (5, 5)),
        ("mnist/gated", 28, (5, 5)),
        ("torchvision/resnet18", 32, (2, 2)),  # its last stage has one cell only: the stage before it
        ("d2l/resnet18", 96, (3, 3)),
    ],
)
def test_every_kind_of_network_has_a_last_stage_and_stays_as_it_was(
    runtime: Runtime, name: str, size: int, cells: tuple[int, int]
) -> None:
    mine = fresh(runtime, name, size)
    layers = dict(mine.network.named_modules())
    channels = mine.manifest.preprocessing.channels
    pixels = np.random.default_rng(1).integers(0, 256, (size, size, channels), dtype=np.uint8)
    found = grad_cam(mine, pixels, class_index=1)
    assert found.heat.shape == cells
    assert found.heat.dtype == np.float32
    assert 0 <= found.heat.min() <= found.heat.max() <= 1
    assert dict(mine.network.named_modules()) == layers
    assert all(parameter.grad is None for parameter in mine.network.parameters())
    body, head = split(mine.network)
    outputs = mine.outputs(pixels[None])
    np.testing.assert_array_equal(outputs.logits, mine.logits(pixels[None]))
    assert outputs.embedding.shape == (1, head.in_features)
    assert type(body) is type(mine.network)


def test_a_class_that_nothing_speaks_for_has_an_empty_map(runtime: Runtime) -> None:
    mine = fresh(runtime, "cifar/resnet8", 32)
    with torch.no_grad():
        mine.network.get_submodule("fc").weight.fill_(-1.0)
    heat = grad_cam(mine, pixels_of(0), class_index=0).heat
    np.testing.assert_array_equal(heat, np.zeros_like(heat))


def test_the_overlay_is_warm_where_the_map_is_and_the_image_itself_where_it_is_not() -> None:
    pixels = np.full((32, 32, 3), 200, dtype=np.uint8)
    heat = np.zeros((4, 4), dtype=np.float32)
    heat[0, 0] = 1
    drawn = np.asarray(Image.open(BytesIO(overlay(pixels, heat))))
    assert drawn.shape == (224, 224, 3)
    red, _, blue = (int(value) for value in drawn[5, 5])
    assert red > 200 > blue + 100
    np.testing.assert_array_equal(drawn[112:, 112:], 200)


@pytest.mark.parametrize("shape", [(28, 28, 1), (300, 200, 3)])
def test_a_png_of_pixels_loses_nothing(shape: tuple[int, int, int]) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, shape, dtype=np.uint8)
    back = np.asarray(Image.open(BytesIO(png(pixels)))).reshape(shape)
    np.testing.assert_array_equal(back, pixels)
    drawn = Image.open(BytesIO(overlay(pixels, np.ones((2, 2), np.float32))))
    assert min(drawn.size) >= 200
    assert image_of(pixels).size == (shape[1], shape[0])
