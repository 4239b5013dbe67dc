"""A model version as one zip that needs nothing of this project: weights, manifest, golden outputs, the network's code.

The same version gives the same bytes: members in a fixed order, uncompressed, without times or owners.
"""

import zipfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from models.manifest import GOLDEN, MANIFEST, WEIGHTS, Manifest
from models.networks.registry import find

NETWORK = "network.py"
README = "README.md"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the first moment that a zip can name
_REGULAR_0644 = 0o100644 << 16
_UNIX = 3
_PIECE = 1 << 20

_TEXT = """\
# {name}, version {version}

{network}: {parameters:,} parameters, {classes} classes, {channels} × {height} × {width} input.

| File | What it is |
|---|---|
| `model.json` | classes, preprocessing, temperature, metrics, and where the model came from |
| `weights.safetensors` | the weights, float32, SHA-256 `{weights}` |
| `golden.safetensors` | a few input images (uint8, N × H × W × C) with the logits that they must give |
| `network.py` | the network's code, PyTorch alone |

To use it, with the packages torch, safetensors, numpy and pillow{torchvision}, in this folder:

```python
import json

import numpy as np
import torch
from PIL import Image, ImageOps
from safetensors.torch import load_file

from network import {function}

manifest = json.load(open("model.json"))
pre = manifest["preprocessing"]
mean = torch.tensor(pre["mean"]).view(-1, 1, 1)
std = torch.tensor(pre["std"]).view(-1, 1, 1)
temperature = (manifest["calibration"] or {{"temperature": 1.0}})["temperature"]

net = {function}({arguments})
net.load_state_dict(load_file("weights.safetensors"))
net.eval()


@torch.inference_mode()
def logits(images):
    \"\"\"uint8 (N, H, W, C) → float32 (N, classes)\"\"\"
    batch = (images.permute(0, 3, 1, 2).float() / 255 - mean) / std
    return {answer}


def upright(image):
    \"\"\"A Pillow image as it was opened → grey or RGB of 8 bits, turned by its EXIF, on white where transparent\"\"\"
    whole = 4095 if ";12" in str(getattr(image, "tile", "")) else 65535
    image = ImageOps.exif_transpose(image)
    if image.mode[0] in "IF":  # grey of more than 8 bits; of floats the values tell the range
        values = np.asarray(image).astype(float)
        ranges = (1, 255, 65535) if image.mode == "F" else (whole, 2**32 - 1)
        full = next(full for full in ranges if values.max() <= full)
        return Image.fromarray(np.rint(values * (255 / full)).astype(np.uint8))
    grey = image.mode in ("1", "L", "LA", "La")
    if image.mode[-1] in "Aa" or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("L" if grey else "RGB")


def prepare(image):
    \"\"\"A Pillow image → uint8 (H, W, C): the shorter side resized, the centre cut out\"\"\"
    image = upright(image).convert("L" if pre["channels"] == 1 else "RGB")
    width, height, resize = pre["width"], pre["height"], pre["resize"]
    if image.size != (width, height):
        scaled = [resize if side == min(image.size) else resize * side // min(image.size) for side in image.size]
        left, top = round((scaled[0] - width) / 2), round((scaled[1] - height) / 2)
        image = image.resize(scaled, Image.Resampling[pre["interpolation"].upper()])
        image = image.crop((left, top, left + width, top + height))
    return torch.from_numpy(np.array(image).reshape(height, width, pre["channels"]))


def classify(path):
    \"\"\"The labels of an image file with their probabilities, the likeliest first\"\"\"
    shares = (logits(prepare(Image.open(path))[None])[0] / temperature).softmax(0)
    return sorted(zip(manifest["classes"], shares.tolist()), key=lambda pair: -pair[1])


golden = load_file("golden.safetensors")
deviation = (logits(golden["images"]) - golden["logits"]).abs().max().item()
allowed = max(1e-3, 1e-5 * golden["logits"].abs().max().item())
print(f"the golden outputs deviate by {{deviation:.2g}}")
assert deviation <= allowed
# print(classify("photo.png")[:3])
```
"""


def members(folder: Path, name: str, version: int) -> Iterator[tuple[str, Path | bytes]]:
    """Every member of the bundle of the version in `folder`, in order: its name, and its file or its bytes."""
    manifest = Manifest.read(folder)
    entry = find(manifest.network.name)
    module, _, function = entry.factory.partition(":")
    source = _source(module)
    readme = _TEXT.format(
        name=name,
        version=version,
        network=manifest.network.name,
        parameters=manifest.parameters,
        classes=len(manifest.classes),
        channels=manifest.preprocessing.channels,
        height=manifest.preprocessing.height,
        width=manifest.preprocessing.width,
        weights=manifest.weights_sha256,
        torchvision=" and torchvision" if b"import torchvision" in source or b"from torchvision" in source else "",
        function=function,
        answer="(net(batch) + net(batch.flip(-1))) / 2" if manifest.test_time_flip else "net(batch)",
        arguments=", ".join(
            [
                *(repr(argument) for argument in entry.arguments),
                f"num_classes={manifest.network.num_classes}",
                f"in_channels={manifest.network.in_channels}",
            ]
        ),
    )
    yield README, readme.encode()
    yield MANIFEST, folder / MANIFEST
    yield WEIGHTS, folder / WEIGHTS
    yield GOLDEN, folder / GOLDEN
    yield NETWORK, source


def write_zip(target: Path | IO[bytes], content: Iterator[tuple[str, Path | bytes]], *, top: str) -> None:
    """Write the members below a folder `top` to a new zip, or to an empty file that is open."""
    with zipfile.ZipFile(target, "x" if isinstance(target, Path) else "w") as archive:
        for name, source in content:
            info = zipfile.ZipInfo(f"{top}/{name}", date_time=_EPOCH)
            info.external_attr, info.create_system = _REGULAR_0644, _UNIX
            if isinstance(source, bytes):
                archive.writestr(info, source)
                continue
            info.file_size = source.stat().st_size  # tells zipfile whether it needs ZIP64 before it writes the head
            with source.open("rb") as file, archive.open(info, "w") as member:
                while piece := file.read(_PIECE):
                    member.write(piece)


def _source(module: str) -> bytes:
    found = find_spec(module)
    if found is None or found.origin is None:
        raise FileNotFoundError(f"the source of {module} is not here")
    return Path(found.origin).read_bytes()
