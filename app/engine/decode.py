"""From a file's bytes to the network's pixels at the speed of libjpeg-turbo.

`precise` is `models/images.py`, as in training. `fast` treats JPEGs otherwise and leaves the rest to it: decoding is
scaled only where twice the size that is resized to stays, and bytes are resized by torch's antialiased kernel. Against
`precise` a value of 0 to 255 differs by 2 at most where decoding was not scaled, one rounding a direction. Where it
was, by 0.5 at most in an image's mean, and by 12 at a sharp edge.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import simplejpeg  # type: ignore[import-untyped]  # it ships no types
import torch

from app.engine.runtimes.threads import use_threads
from models.images import (
    TURNED,
    ImageWarning,
    JpegHeader,
    channel_notes,
    decode,
    jpeg_header,
    prepare,
    scaled,
)
from models.manifest import Preprocessing

Pixels = npt.NDArray[np.uint8]
Read = Callable[[bytes | memoryview], tuple[Pixels, tuple[ImageWarning, ...]]]

_LONGEST = 8  # of the network's input: beyond it most of a resized image would be cut off again

# What torch.nn.functional.interpolate calls with antialias=True; it cannot be told a size and a scale.
_RESIZE = {
    "bilinear": torch.ops.aten._upsample_bilinear2d_aa,  # noqa: SLF001 - the operator's own name
    "bicubic": torch.ops.aten._upsample_bicubic2d_aa,  # noqa: SLF001 - likewise
}

_UPRIGHT: dict[int, Callable[[Pixels], Pixels]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, 3),
    7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
    8: lambda a: np.rot90(a, 1),
}


def reader(to: Preprocessing, *, max_pixels: int, exact: bool) -> Read:
    """What makes uint8 (height, width, channels) of an encoded image, with remarks for its owner, on any thread.

    It raises ImageRejected, whatever the bytes, and MemoryError. `exact` is `models/images.py` for every image.
    """

    def precise(data: bytes | memoryview) -> tuple[Pixels, tuple[ImageWarning, ...]]:
        decoded = decode(bytes(data), max_pixels=max_pixels)
        pixels, notes = prepare(decoded, to)
        return pixels, (*decoded.warnings, *notes)

    def fast(data: bytes | memoryview) -> tuple[Pixels, tuple[ImageWarning, ...]]:
        whole = bytes(data)
        header = jpeg_header(whole)
        if header is None or header.width * header.height > max_pixels or _long(header, to):
            return precise(whole)
        try:
            return _jpeg(whole, header, to)
        except (ValueError, MemoryError, RuntimeError):  # torch lacks memory with a RuntimeError
            # A damaged file, one that decoders argue about, or one too many just now: Pillow has the last word.
            return precise(whole)

    return precise if exact else fast


def _long(header: JpegHeader, to: Preprocessing) -> bool:
    width, height, _, _ = scaled(header.width, header.height, to)
    return max(width, height) > _LONGEST * max(to.width, to.height)


def _jpeg(data: bytes, header: JpegHeader, to: Preprocessing) -> tuple[Pixels, tuple[ImageWarning, ...]]:
    keep = 2 * to.resize
    decoded: Pixels = simplejpeg.decode_jpeg(
        data, "GRAY" if header.mode == "L" else "RGB", min_height=keep, min_width=keep, min_factor=2
    )
    turned = header.orientation in _UPRIGHT
    upright = np.ascontiguousarray(_UPRIGHT[header.orientation](decoded)) if turned else decoded
    size = (header.height, header.width) if header.orientation >= 5 else (header.width, header.height)
    pixels = _channels(_resize_and_crop(upright, size, to), to.channels)
    return pixels, ((TURNED,) if turned else ()) + channel_notes(header.mode, to)


def _resize_and_crop(image: Pixels, size: tuple[int, int], to: Preprocessing) -> Pixels:
    """uint8 (H, W, C) → (height, width, C), as torchvision's Resize and CenterCrop do.

    `size` is (width, height) of the file. Decoding at n/8 of it rounds up, so the image's own shape does not tell its
    scale: by that alone what lies at its far edges would be shifted.
    """
    if size == (to.width, to.height):
        return image
    width, height, left, top = scaled(*size, to)
    decoded_at = round(8 * max(image.shape[:2]) / max(size)) / 8
    factors = [new / (old * decoded_at) for new, old in ((height, size[1]), (width, size[0]))]
    use_threads(1)  # this is one of several decoding threads
    with torch.inference_mode():
        batch = torch.from_numpy(image).permute(2, 0, 1).unsqueeze(0)  # channels last, as the bytes lie
        resized = _RESIZE[to.interpolation](batch, [height, width], False, *factors)
        crop = resized[0, :, top : top + to.height, left : left + to.width].permute(1, 2, 0).contiguous()
    result: Pixels = crop.numpy()
    return result


def _channels(image: Pixels, channels: int) -> Pixels:
    """Grey repeated, or colour made grey: ITU-R BT.601 luma in 16 bits of fraction, as Pillow rounds it."""
    if image.shape[2] == channels:
        return image
    if channels == 3:
        return np.repeat(image, 3, axis=2)
    red, green, blue = (image[:, :, i].astype(np.uint32) for i in range(3))
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).astype(np.uint8)[:, :, None]
