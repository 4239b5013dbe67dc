"""Model versions to measure serving with: a torchvision ResNet that was trained to tell photographs apart.

Nobody's weights are downloaded. Every weight learns, from crops of the photographs, small ones first and at last of the
size that is served, until the answers are those of a trained network: sure ones, without ties. Minutes on two cores.
"""

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps
from safetensors.torch import save
from torch.nn import functional

from benchmarks.manifests import lineage, manifest
from models import golden, probes
from models.catalog import PRODUCTION, Catalog
from models.manifest import WEIGHTS, NetworkSpec, Preprocessing
from models.networks.registry import build
from models.runtime import Normalise, load

SIDE = 224
_CANVAS = 256  # a photograph's side, before a crop is taken from it
_STAGES = ((64, 150), (128, 40), (SIDE, 15))  # side of the crops, and how often each photograph is seen at it
_BATCH = 50
_LR = 0.05  # at its height
_CROPS = 4  # of each photograph, to calibrate with and to be held out

Pixels = npt.NDArray[np.uint8]


def photographs(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.jpg"))


def publish(models: Path, network: str, photos: list[Path], *, work: Path) -> str:
    """Make a model of `network`, e.g. `resnet50`, that names each photograph; its name in the catalog `models`."""
    torch.manual_seed(0)
    name = f"{network}-photos"
    to = Preprocessing(
        channels=3, height=SIDE, width=SIDE, resize=256, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
    )
    canvases = np.stack([_canvas(path) for path in photos])
    spec = NetworkSpec(name=f"torchvision/{network}", num_classes=len(photos), in_channels=3)
    module = build(spec).to(memory_format=torch.channels_last)
    _train(module, Normalise(to, torch.device("cpu")), canvases)
    crops = _crops(canvases)

    folder = work / name
    folder.mkdir(parents=True)
    weights = save({key: tensor.contiguous() for key, tensor in module.state_dict().items()})
    (folder / WEIGHTS).write_bytes(weights)
    unproven = manifest(
        lineage(f"job_{network}", dataset="ds_photos", dataset_name="photos", code_version="benchmark"),
        network=spec.name,
        parameters=sum(parameter.numel() for parameter in module.parameters()),
        classes=tuple(path.stem for path in photos),
        preprocessing=to,
        weights=weights,
    )
    unproven.write(folder)
    reference = load(folder, "cpu")

    def logits(images: Pixels) -> npt.NDArray[np.float32]:
        return np.concatenate([reference.logits(images[i : i + 16]) for i in range(0, len(images), 16)])

    chosen, half = crops[:12, 0], _CROPS // 2
    digests = {
        "golden_sha256": golden.write(folder, chosen, logits(chosen)),
        "calibration_sha256": probes.write(
            folder,
            calibration=crops[:, :half].reshape(-1, SIDE, SIDE, 3),
            heldout=crops[:, half:].reshape(-1, SIDE, SIDE, 3),
            labels=np.repeat(np.arange(len(photos)), _CROPS - half),
            logits=logits,
        ),
    }
    unproven.model_copy(update=digests).write(folder)
    catalog = Catalog(models)
    catalog.set_alias(name, PRODUCTION, catalog.publish(name, folder, unproven.lineage.job))
    return name


def _canvas(photo: Path) -> Pixels:
    """uint8 (256, 256, 3): the middle of the photograph."""
    image = ImageOps.fit(Image.open(photo).convert("RGB"), (_CANVAS, _CANVAS), Image.Resampling.BILINEAR)
    return np.asarray(image)


def _crops(canvases: Pixels) -> Pixels:
    """uint8 (photographs, crops, 224, 224, 3): the middle first, then other windows."""
    draw = np.random.default_rng(0)
    middle = (_CANVAS - SIDE) // 2
    places = [(middle, middle), *draw.integers(0, _CANVAS - SIDE + 1, (_CROPS - 1, 2)).tolist()]
    return np.stack([canvases[:, top : top + SIDE, left : left + SIDE] for top, left in places], axis=1)


def _train(module: torch.nn.Module, normalise: Normalise, canvases: Pixels) -> None:
    """Let every weight learn which photograph a crop is from; the module is in evaluation mode afterwards."""
    images, targets = normalise(torch.from_numpy(canvases)), torch.arange(len(canvases))
    steps = sum(times for _, times in _STAGES) * math.ceil(len(images) / _BATCH)
    optimizer = torch.optim.SGD(module.parameters(), lr=_LR, momentum=0.9, nesterov=True, weight_decay=5e-5)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=_LR, total_steps=steps + 1)
    module.train()
    for side, times in _STAGES:
        for _ in range(times):
            top, left, flip = torch.randint(_CANVAS - SIDE + 1, (3,)).tolist()
            seen = images[:, :, top : top + SIDE, left : left + SIDE]
            seen = functional.interpolate(seen.flip(3) if flip % 2 else seen, size=(side, side), mode="area")
            for rows in torch.randperm(len(images)).split(_BATCH):
                with torch.autocast("cpu", torch.bfloat16):
                    logits = module(seen[rows])
                loss = functional.cross_entropy(logits.float(), targets[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
    module.eval()
