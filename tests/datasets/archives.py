"""Archives made on the spot, for the tests of the importer."""

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from worker.importer.limits import Limits

FASHION_MINI = Path(__file__).resolve().parents[1] / "data" / "fashion-mnist-mini"
LIMITS = Limits(members=1000, ratio=100, unpacked_bytes=2**30, image_bytes=10**6, image_pixels=10**6)

Files = dict[str, bytes]


def png(seed: int, *, size: tuple[int, int] = (8, 8), mode: str = "RGB") -> bytes:
    """A small image of noise; equal seeds give equal bytes."""
    bands = len(Image.new(mode, (1, 1)).getbands())
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], bands), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise[:, :, 0] if bands == 1 else noise).save(out, "PNG")
    return out.getvalue()


def zipped(files: Files, *, create_system: int = 3) -> bytes:
    """`create_system`: where the zip says that it was made; 3 is Unix, 0 is Windows."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            info = zipfile.ZipInfo(name)
            info.create_system, info.compress_type = create_system, zipfile.ZIP_DEFLATED
            archive.writestr(info, data)
    return out.getvalue()


def of_powershell(files: Files) -> bytes:
    """As Compress-Archive of Windows PowerShell 5.1 writes them: backslashes in names, also at a folder's end."""
    folders = {f"{name.rpartition('/')[0]}\\".replace("/", "\\"): b"" for name in files if "/" in name}
    return zipped(folders | {name.replace("/", "\\"): data for name, data in files.items()}, create_system=0)


def tarred(files: Files, compression: str = "") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=f"w:{compression}") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def cats_and_dogs(*, prefix: str = "", each: int = 10) -> Files:
    """Class folders without splits."""
    return {
        f"{prefix}{name}/{i}.png": png(i + 100 * label)
        for label, name in enumerate(["cat", "dog"])
        for i in range(each)
    }


def split_folders(prefix: str = "") -> Files:
    return {
        f"{prefix}{split}/{name}/{i}.png": png(hash_of(split, label, i))
        for split, images in (("train", 4), ("test", 2))
        for label, name in enumerate(["cat", "dog"])
        for i in range(images)
    }


def hash_of(split: str, label: int, i: int) -> int:
    return (split == "test") * 1000 + label * 100 + i
