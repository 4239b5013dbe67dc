"""Model versions to measure serving with: a torchvision ResNet that knows a folder of photographs.

Nobody's weights are downloaded. The convolutions are random, their normalisation has the photographs' statistics, and
the last layer is fitted to tell the photographs apart from crops of them (ridge regression): real outputs without ties,
in seconds. Random convolutions cost what trained ones cost.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from safetensors.torch import save

from benchmarks.manifests import lineage, manifest
from models import golden, probes
from models.catalog import PRODUCTION, Catalog
from models.manifest import WEIGHTS, NetworkSpec, Preprocessing
from models.networks.registry import build
from models.runtime import Normalise, load, split

SIDE = 224
_CROPS = 6  # of each photograph
_LEARNED = 4  # of them; the others are held out
_RIDGE = 0.25  # of the number of images
_MARGIN = 3.0  # between the right class's logit and the middle one's, in the mean

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
    crops = _crops(photos)
    spec = NetworkSpec(name=f"torchvision/{network}", num_classes=len(photos), in_channels=3)
    module = build(spec).to(memory_format=torch.channels_last)
    normalise = Normalise(to, torch.device("cpu"))
    _take_statistics(module, normalise, crops[:, 0])
    learning, held = crops[:, :_LEARNED], crops[:, _LEARNED:]
    _fit(module.eval(), normalise, learning)

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

    chosen = crops[:12, 0]
    digests = {
        "golden_sha256": golden.write(folder, chosen, logits(chosen)),
        "calibration_sha256": probes.write(
            folder,
            calibration=learning.reshape(-1, *learning.shape[2:])[::2],
            heldout=held.reshape(-1, *held.shape[2:]),
            labels=np.repeat(np.arange(len(photos)), held.shape[1]),
            logits=logits,
        ),
    }
    unproven.model_copy(update=digests).write(folder)
    catalog = Catalog(models)
    catalog.set_alias(name, PRODUCTION, catalog.publish(name, folder, unproven.lineage.job))
    return name


def _crops(photos: list[Path]) -> Pixels:
    """uint8 (photographs, crops, 224, 224, 3): the whole picture first, then random parts of it."""
    draw = np.random.default_rng(0)
    rows = []
    for path in photos:
        image = Image.open(path).convert("RGB")
        row = [image.resize((SIDE, SIDE))]
        for _ in range(_CROPS - 1):
            width, height = (side * draw.uniform(0.85, 1.0) for side in image.size)
            left, top = draw.uniform(0, image.width - width), draw.uniform(0, image.height - height)
            row.append(image.resize((SIDE, SIDE), box=(left, top, left + width, top + height)))
        rows.append([np.asarray(each) for each in row])
    return np.array(rows, dtype=np.uint8)


@torch.no_grad()
def _take_statistics(module: torch.nn.Module, normalise: Normalise, images: Pixels) -> None:
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None  # the mean over all batches
    module.train()
    for start in range(0, len(images), 25):
        module(normalise(torch.from_numpy(np.ascontiguousarray(images[start : start + 25]))))


@torch.no_grad()
def _fit(module: torch.nn.Module, normalise: Normalise, images: Pixels) -> None:
    """Set the last layer by ridge regression from embeddings to photographs."""
    body, head = split(module)
    flat = images.reshape(-1, *images.shape[2:])
    embeddings = torch.cat([body(normalise(torch.from_numpy(flat[i : i + 25]))) for i in range(0, len(flat), 25)])
    centre, spread = embeddings.mean(0), embeddings.std()
    x = torch.cat([(embeddings - centre) / spread, torch.ones(len(flat), 1)], dim=1)
    y = torch.eye(len(images)).repeat_interleave(images.shape[1], dim=0)
    solved = torch.linalg.solve(x.T @ x + _RIDGE * len(flat) * torch.eye(x.shape[1]), x.T @ y)
    scores = x @ solved
    solved *= _MARGIN / (scores[y.bool()] - scores.median(dim=1).values).mean()
    weight = solved[:-1].T / spread
    head.weight.copy_(weight)
    head.bias.copy_(solved[-1] - weight @ centre)
