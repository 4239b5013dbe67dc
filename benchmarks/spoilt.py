"""Images as clients send them, and files that are none: cut, with bits turned, of other types, empty, far too large."""

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
_CORRUPT = frozenset({"corrupt_image", "unsupported_format"})


@dataclass(frozen=True)
class Spoilt:
    """A file whose answer must be an error with one of `codes`, and what was done to it."""

    data: bytes
    kind: str
    codes: frozenset[str]


def pictures(draw: np.random.Generator, *, count: int, formats: tuple[str, ...] = _FORMATS) -> list[bytes]:
    """Soft patches of colour, or of grey, 24 to 160 pixels a side, each file another."""
    return [_picture(draw, formats[i % len(formats)]) for i in range(count)]


def spoilt(draw: np.random.Generator, *, count: int) -> list[Spoilt]:
    """Of each kind as many, in turn. Where bits were turned a decoder may still see an image: ask it before."""
    kinds = list(_KINDS.items())
    return [kinds[i % len(kinds)][1](draw, kinds[i % len(kinds)][0]) for i in range(count)]


def _picture(draw: np.random.Generator, file_format: str) -> bytes:
    patches = draw.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    width, height = (int(side) for side in draw.integers(24, 161, 2))
    image = Image.fromarray(patches).resize((width, height), Image.Resampling.BICUBIC)
    if draw.random() < 0.2:
        image = image.convert("L")
    file = BytesIO()
    image.save(file, file_format)
    return file.getvalue()


def _cut(draw: np.random.Generator, kind: str) -> Spoilt:
    data = _picture(draw, str(draw.choice(["JPEG", "PNG", "WEBP"])))
    return Spoilt(data[: int(len(data) * draw.uniform(0.02, 0.9))], kind, _CORRUPT)


def _bits_turned(draw: np.random.Generator, kind: str) -> Spoilt:
    """In what comes before the pixels."""
    data = bytearray(_picture(draw, str(draw.choice(["JPEG", "PNG", "WEBP"]))))
    for place in draw.integers(0, 48, 6):
        data[place] ^= 1 << int(draw.integers(8))
    return Spoilt(bytes(data), kind, _CORRUPT | {"image_too_large"})


def _other_type(draw: np.random.Generator, kind: str) -> Spoilt:
    heads = (
        b"%PDF-1.7\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"PK\3\4",
        b"GIF87",
        b"\x7fELF",
        b"\0\0\0\x18ftyp",
    )
    return Spoilt(heads[int(draw.integers(len(heads)))] + draw.bytes(int(draw.integers(2, 3000))), kind, _CORRUPT)


def _empty(_draw: np.random.Generator, kind: str) -> Spoilt:
    return Spoilt(b"", kind, frozenset({"empty_image"}))


def _said_to_be_huge(draw: np.random.Generator, kind: str) -> Spoilt:
    """A small PNG whose header says that it has gigapixels."""
    data = _picture(draw, "PNG")
    side = int(draw.integers(30_000, 2**31))
    header = b"IHDR" + struct.pack(">II", side, side) + data[24:29]
    return Spoilt(
        data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:], kind, frozenset({"image_too_large"})
    )


_KINDS: dict[str, Callable[[np.random.Generator, str], Spoilt]] = {
    "cut": _cut,
    "bits turned": _bits_turned,
    "other type": _other_type,
    "empty": _empty,
    "said to be huge": _said_to_be_huge,
}
