"""Real data in this repository, as tests send it."""

import gzip
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

MINI = Path(__file__).parent / "data" / "fashion-mnist-mini"
IDX = sorted(MINI.glob("*-ubyte.gz"))


def zip_mini(target: Path, *, named: bool = True) -> Path:
    """The class-balanced subset of Fashion-MNIST as one archive of its four IDX files.

    Where its classes are not `named`, they are called 0 to 9.
    """
    with zipfile.ZipFile(target, "w") as archive:
        for path in [*IDX, *(MINI.glob("classes.txt") if named else ())]:
            archive.write(path, path.name)
    return target


def tiny_zip(content: bytes = b"") -> bytes:
    """An archive of one file that holds `content` as it is: an upload that is taken, and cannot be imported."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(zipfile.ZipInfo("a.txt"), content)
    return file.getvalue()


def mini_test_labels() -> npt.NDArray[np.uint8]:
    return np.frombuffer(gzip.decompress((MINI / "t10k-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8)


def mini_test_images() -> Iterator[bytes]:
    """The test images of the subset, each as a PNG file."""
    pixels = np.frombuffer(gzip.decompress((MINI / "t10k-images-idx3-ubyte.gz").read_bytes()), np.uint8, offset=16)
    for image in pixels.reshape(-1, 28, 28):
        yield png(Image.fromarray(image))


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def photo(*, size: tuple[int, int] = (32, 32)) -> Image.Image:
    """A colour picture, the same each time."""
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)
