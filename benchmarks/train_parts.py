"""The parts of `benchmarks.train` that compute, each in a process of its own: `PART DATA_DIRECTORY OPTIONS`.

The options are a JSON object; so is the only line of standard output.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms

from benchmarks.idx_files import Labels, Pixels
from models.manifest import NetworkSpec
from models.networks.registry import build
from models.recipes import Recipe, resolve
from models.runtime import Normalise, resolve_device
from store.datasets import Dataset as Imported
from store.layout import Layout
from store.splits import open_split
from worker.trainer import augment, data, mixing
from worker.trainer.feed import feed

DATASET = "ds_bench"
EPOCHS = 2  # the first one warms up: memory is touched, kernels are made
_LOADERS = 4  # the book's
# What `pipeline` measures the input of: a recipe, and what is changed in it.
INPUTS: dict[str, tuple[str, dict[str, Any]]] = {
    "ours": ("d2l-fashion-mnist", {}),  # no augmentation, as the book has none
    "fashion-mnist": ("fashion-mnist", {}),  # shifts, mirror images
    "auto_augment": ("fashion-mnist", {"auto_augment": "trivial"}),  # and TrivialAugment
}


class Resized(Dataset[tuple[Tensor, int]]):
    """The book's dataset: each image resized by Pillow whenever it is asked for."""

    def __init__(self, pixels: Pixels, labels: Labels, size: int) -> None:
        self._pixels, self._labels = pixels, labels
        self._transform = transforms.Compose([transforms.Resize(size), transforms.ToTensor()])

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._transform(Image.fromarray(self._pixels[index, :, :, 0])), int(self._labels[index])


def book(layout: Layout, asked: argparse.Namespace) -> dict[str, float]:
    """The book's training loop: images a second of its last epoch, and how much of it the loader alone would take."""
    folder, device = layout.dataset(DATASET), resolve_device(asked.device)
    split = open_split(folder, Imported.read(folder), "train")
    images = Resized(np.array(split.pixels), np.array(split.labels), asked.size)
    net, loss = _network(asked).to(device), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    loader = DataLoader(images, asked.batch, shuffle=True, num_workers=_LOADERS)

    def epoch(*, train: bool) -> float:
        began = time.perf_counter()
        for inputs, labels in loader:
            if train:
                optimizer.zero_grad()
                loss(net(inputs.to(device)), labels.to(device)).backward()
                optimizer.step()
        _wait_for(device)
        return time.perf_counter() - began

    for _ in range(EPOCHS - 1):
        epoch(train=True)
    whole, alone = epoch(train=True), epoch(train=False)
    return {"images_per_second": asked.steps * asked.batch / whole, "input_share": alone / whole}


def pipeline(layout: Layout, asked: argparse.Namespace) -> dict[str, float]:
    """Our batches as the network takes them, made without training on them: images a second of each of `INPUTS`."""
    overrides = {"image_size": asked.size, "batch_size": asked.batch, "network": asked.network, **asked.override}
    return {
        name: _made(layout, asked, resolve(recipe, {**overrides, **changed}))
        for name, (recipe, changed) in INPUTS.items()
    }


def _made(layout: Layout, asked: argparse.Namespace, recipe: Recipe) -> float:
    folder, device = layout.dataset(DATASET), resolve_device(asked.device)
    reading = data.Reading(between=lambda: None, loader=recipe.loader, workers=recipe.workers, readers=1)
    loaded = data.read_training_data(folder, Imported.read(folder), recipe, reading)
    batches = feed(loaded.train.pixels, device, workers=recipe.workers)
    normalise = Normalise(loaded.preprocessing, device)

    def epoch(number: int) -> float:
        began = time.perf_counter()
        draws = augment.draw(recipe, samples=len(loaded.train), epoch=number, device=device)
        order = augment.order(samples=len(loaded.train), seed=0, epoch=number)
        visits = order[: asked.steps * asked.batch].reshape(asked.steps, asked.batch)
        for step, batch in enumerate(batches.batches(visits)):
            rows = torch.arange(step * asked.batch, (step + 1) * asked.batch, device=device)
            images = augment.batch(batch.pixels, batch.index, rows, draws, recipe).to(device)
            inputs = augment.hide(normalise(images), rows, draws, cutout=recipe.cutout)
            if draws.mix is not None:
                mixing.mix(inputs, rows, draws.mix)
        _wait_for(device)
        return time.perf_counter() - began

    epoch(0)
    return float(asked.steps * asked.batch / min(epoch(number) for number in (1, 2, 3)))


def limits(_layout: Layout, asked: argparse.Namespace) -> dict[str, Any]:
    """What the device gives at most in a bf16 matrix product, and what an image costs in the forward pass."""
    device = resolve_device(asked.device)
    side = 8192 if device.type == "cuda" else 2048
    left, right = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    best = float("inf")
    for _ in range(10):
        _wait_for(device)
        began = time.perf_counter()
        left @ right
        _wait_for(device)
        best = min(best, time.perf_counter() - began)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        _network(asked).eval()(torch.zeros(1, 1, asked.size, asked.size))
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "peak_bf16_flops": round(2 * side**3 / best),
        "forward_flops_per_image": counter.get_total_flops(),
    }


def _network(asked: argparse.Namespace) -> nn.Module:
    torch.manual_seed(0)
    return build(NetworkSpec(name=asked.network, num_classes=10, in_channels=1))


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


PARTS = {part.__name__: part for part in (book, pipeline, limits)}

if __name__ == "__main__":
    name, folder, options = sys.argv[1:]
    print(json.dumps(PARTS[name](Layout(Path(folder)), argparse.Namespace(**json.loads(options)))))
