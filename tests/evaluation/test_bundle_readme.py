"""The code in a bundle's README sees the pixels that this project's own processes see."""

import ast
import re
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from samples import photo

from models import bundle, golden
from models.catalog import STARTERS
from models.images import decode, prepare
from models.manifest import Manifest


def odd_images() -> dict[str, bytes]:
    """Files of which a plain `convert` gives other pixels than the engine sees."""
    colour, draw = photo(size=(40, 33)), np.random.default_rng(0)
    grey, alpha = colour.convert("L"), Image.fromarray(draw.integers(0, 256, (33, 40), dtype=np.uint8))
    deep = Image.fromarray(draw.integers(0, 65536, (33, 40), dtype=np.uint16))
    exif = Image.Exif()
    exif[0x0112] = 6
    both = {"LA": Image.merge("LA", (grey, alpha)), "RGBA": Image.merge("RGBA", (*colour.split(), alpha))}
    palette = colour.quantize(16)
    kinds: dict[str, tuple[Image.Image, str, dict[str, Any]]] = {
        "plain": (colour, "PNG", {}),
        "turned jpeg": (colour, "JPEG", {"exif": exif}),
        "turned png": (colour, "PNG", {"exif": exif}),
        "turned tiff": (colour, "TIFF", {"exif": exif}),
        "alpha": (both["RGBA"], "PNG", {}),
        "turned alpha": (both["RGBA"], "WEBP", {"exif": exif, "lossless": True}),
        "grey with alpha": (both["LA"], "PNG", {}),
        "palette": (palette, "PNG", {}),
        "palette with a transparent colour": (palette, "PNG", {"transparency": 3}),
        "colour key": (grey, "PNG", {"transparency": 200}),
        "16 bits": (deep, "PNG", {}),
        "16 bits tiff": (deep, "TIFF", {}),
        "32 bits": (deep.convert("I").point(lambda value: value * 4000), "TIFF", {}),
        "floats": (Image.fromarray(draw.random((33, 40), dtype=np.float32)), "TIFF", {}),
        "one bit": (grey.convert("1"), "PNG", {}),
        "cmyk": (colour.convert("CMYK"), "JPEG", {}),
    }
    files = {}
    for name, (image, file_format, options) in kinds.items():
        file = BytesIO()
        image.save(file, file_format, **options)
        files[name] = file.getvalue()
    return files


ODD = odd_images()


@pytest.mark.parametrize("largest", [3.0, 100.0, 5e4])
def test_the_readmes_golden_outputs_may_deviate_as_far_as_an_engines(largest):
    readme = dict(bundle.members(STARTERS / "mnist-residual", "m", 1))["README.md"]
    assert isinstance(readme, bytes)
    (allowed,) = re.findall(r"^allowed = (.*)\nprint.*\nassert deviation <= allowed$", readme.decode(), re.MULTILINE)
    logits = np.array([[0.5, -largest], [largest / 2, 0.0]], np.float32)
    found = eval(allowed, {"golden": {"logits": torch.from_numpy(logits)}})
    assert found == pytest.approx(golden.tolerance(logits))


@pytest.mark.parametrize("model", ["cifar10-resnet20", "mnist-residual"])
@pytest.mark.parametrize("name", ODD)
def test_the_readmes_code_prepares_every_image_as_the_engine_does(model, name):
    folder = STARTERS / model
    readme = dict(bundle.members(folder, "m", 1))["README.md"]
    assert isinstance(readme, bytes)
    (code,) = re.findall(r"```python\n(.*?)```", readme.decode(), re.DOTALL)
    parts = [part for part in ast.parse(code).body if getattr(part, "name", None) in ("upright", "prepare")]
    preprocessing = Manifest.read(folder).preprocessing
    module = {"np": np, "torch": torch, "Image": Image, "ImageOps": ImageOps, "pre": preprocessing.model_dump()}
    exec(compile(ast.Module(parts, []), "README.md", "exec"), module)
    expected, _ = prepare(decode(ODD[name], max_pixels=10_000), preprocessing)
    assert np.array_equal(module["prepare"](Image.open(BytesIO(ODD[name]))).numpy(), expected)
