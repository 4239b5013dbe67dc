"""From a file's bytes to the network's pixels, the same in import, training and serving. Pillow and NumPy, no torch.

`decode` opens what a client sent, in six formats and no other, and gives an upright 8-bit grey or RGB image.
`prepare` gives it the channels and the size that a network was trained with. Both say what they changed as warnings.
"""

import logging
import warnings
from contextlib import nullcontext
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from models.manifest import Preprocessing
from models.pixel_budget import PixelBudget

# Everything else that Pillow could open stays closed: old decoders, external programs (EPS), rare parsers.
FORMATS = tuple(
    plugin.format for plugin in (JpegImageFile, PngImageFile, WebPImageFile, GifImageFile, BmpImageFile, TiffImageFile)
)
_FORMATS_HINT = "send JPEG, PNG, WebP, GIF, BMP or TIFF"
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"BM", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_ALPHA_MODES = frozenset({"RGBA", "LA", "PA", "La", "RGBa"})
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_LONGEST = 8  # times the shorter side
# A file of some kilobytes may hold 40 million pixels, and one with transparency takes 16 bytes for each on its way.
_AT_ONCE = PixelBudget(100_000_000)
_SMALL = 4_000_000  # pixels of an image that is not counted
_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}

# Pillow's remarks on odd files are for developers; what matters to a client is in `Decoded.warnings`. Set once, at
# import: `warnings.catch_warnings` around each call would not be safe on threads.
warnings.filterwarnings("ignore", module=r"PIL\.")
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
logging.getLogger("PIL").setLevel(logging.CRITICAL)


class ImageRejected(Exception):
    """`code`: unsupported_format, corrupt_image, image_too_large or empty_image; the rest is for people."""

    def __init__(self, code: str, message: str, hint: str) -> None:
        super().__init__(message)
        self.code, self.message, self.hint = code, message, hint


@dataclass(frozen=True)
class ImageWarning:
    """Something about the image was converted; the code names what."""

    code: str
    message: str


TURNED = ImageWarning("exif_rotated", "the image was turned upright as its EXIF orientation says")


@dataclass(frozen=True)
class Decoded:
    """An upright 8-bit image of mode `L` or `RGB`; `format` and `mode` are the file's own, in Pillow's names."""

    image: Image.Image
    warnings: tuple[ImageWarning, ...] = ()
    format: str | None = None
    mode: str | None = None


@dataclass(frozen=True)
class JpegHeader:
    """A JPEG before any pixel is decoded: `mode` is `L` or `RGB`; `orientation` is 1 to 8, as in EXIF."""

    width: int
    height: int
    mode: str
    orientation: int


def jpeg_header(data: bytes) -> JpegHeader | None:
    """The header of a JPEG whose pixels every decoder gives alike; None for all else, for which there is `decode`."""
    if not data.startswith(b"\xff\xd8\xff"):
        return None
    try:
        with Image.open(BytesIO(data), formats=("JPEG",)) as image:
            plain = image.mode in {"L", "RGB"} and image.info.get("adobe_transform", 1) == 1
            return JpegHeader(*image.size, image.mode, _orientation(image)) if plain else None
    except Exception:  # `decode` meets the same error and knows its name
        return None


def decode(data: bytes, *, max_pixels: int) -> Decoded:
    """The image in `data`, any thread. Raises ImageRejected and nothing else, whatever the bytes.

    Size is checked in the header, before any pixel is decoded. Transparent images are put on white, as a page shows
    them: dropping the alpha channel would uncover colours that nobody ever saw. 16-bit values are scaled to 8 bits.
    """
    if not data:
        raise ImageRejected("empty_image", "the image is empty (0 bytes)", "check that the file was read and sent")
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            count = image.width * image.height
            if count > max_pixels:
                raise _too_large(max_pixels, image.size)
            with _AT_ONCE.of(count) if count > _SMALL else nullcontext():
                return _decode(image)
    except ImageRejected:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError) as error:
        raise _too_large(max_pixels) from error
    except UnidentifiedImageError as error:
        if data.startswith(_MAGIC) or (data[:4] == b"RIFF" and data[8:12] == b"WEBP"):
            raise _corrupt("its header is damaged") from error
        raise ImageRejected("unsupported_format", "not an image of a known format", _FORMATS_HINT) from error
    except Exception as error:  # Pillow's parsers raise OSError, SyntaxError, ValueError, struct.error and more
        raise _corrupt(str(error) or type(error).__name__) from error


def prepare(decoded: Decoded, preprocessing: Preprocessing) -> tuple[npt.NDArray[np.uint8], tuple[ImageWarning, ...]]:
    """The network's input before normalization, uint8 (height, width, channels), and what had to be changed here.

    The shorter side is resized to `resize` (antialiased), the other in proportion, rounded down, and the centre is cut
    out, as torchvision's Resize and CenterCrop do. An image that has this size already is passed on to the bit.
    """
    image, wanted = decoded.image, "L" if preprocessing.channels == 1 else "RGB"
    if image.mode != wanted:
        image = image.convert(wanted)  # ITU-R BT.601 luma; exact where red, green and blue are equal
    if image.size != (preprocessing.width, preprocessing.height):
        image = _resize_and_crop(image, preprocessing)
    return pixels(image), channel_notes(decoded.image.mode, preprocessing)


def channel_notes(mode: str, to: Preprocessing) -> tuple[ImageWarning, ...]:
    """What a client is told when an image of mode `L` or `RGB` gets the network's channels."""
    if to.channels == 1 and mode != "L":
        return (ImageWarning("converted_to_grayscale", "the model takes grey images; colour was removed"),)
    if to.channels == 3 and mode != "RGB":
        return (ImageWarning("converted_to_rgb", "the model takes RGB images; grey was repeated in three channels"),)
    return ()


def scaled(width: int, height: int, to: Preprocessing) -> tuple[int, int, int, int]:
    """The size (width, height) that an image is resized to, and the left and top of the crop in it."""
    shorter = min(width, height)
    new_width, new_height = (to.resize if side == shorter else to.resize * side // shorter for side in (width, height))
    return new_width, new_height, round((new_width - to.width) / 2), round((new_height - to.height) / 2)


def pixels(image: Image.Image) -> npt.NDArray[np.uint8]:
    """A mode `L` or `RGB` image as its own uint8 array (H, W, C)."""
    array = np.array(image, dtype=np.uint8)
    return array[:, :, None] if array.ndim == 2 else array


def _resize_and_crop(image: Image.Image, to: Preprocessing) -> Image.Image:
    """Resize, then cut out: bit for bit what torchvision's preset does, whose roundings depend on the size resized to.

    A very long image is resized and cut in one step, so that it never exists at full length.
    """
    new_width, new_height, left, top = scaled(*image.size, to)
    if max(new_width, new_height) <= _LONGEST * to.resize:
        resized = image.resize((new_width, new_height), _RESAMPLING[to.interpolation])
        return resized.crop((left, top, left + to.width, top + to.height))
    x, y = image.width / new_width, image.height / new_height
    # The corners are clamped because Pillow refuses a box that float rounding put outside by 1e-13.
    box = (left * x, top * y, min((left + to.width) * x, image.width), min((top + to.height) * y, image.height))
    return image.resize((to.width, to.height), _RESAMPLING[to.interpolation], box=box)


def _decode(image: ImageFile.ImageFile) -> Decoded:
    if image.width == 0 or image.height == 0:
        raise _corrupt("it has no pixels")
    file_format, mode, raw_mode = image.format, image.mode, _raw_mode(image)
    notes = []
    if file_format != "MPO" and getattr(image, "is_animated", False):
        image.seek(0)
        notes.append(ImageWarning("first_frame_only", "the file holds several frames; the first was used"))
    # TIFF turns itself while loading, so it is asked before. Others are asked after it: PNG may tell only then, and
    # a PNG that is asked loads itself and keeps quiet about broken data.
    told = _orientation(image) if file_format == "TIFF" else 1
    image.load()
    upright: Image.Image = image
    left_to_turn = _orientation(image)
    if left_to_turn in _TRANSPOSE:
        upright = image.transpose(_TRANSPOSE[left_to_turn])
    if told in _TRANSPOSE or left_to_turn in _TRANSPOSE:
        notes.append(TURNED)
    converted, more = _to_8_bit(upright, raw_mode)
    if converted is image:
        converted = image.copy()
    return Decoded(converted, (*notes, *more), file_format, mode)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8: 1 (upright) where the file tells none, or none that can be read or exists."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # a broken EXIF block does not make its image worthless
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _raw_mode(image: Image.Image) -> str:
    """How the file packs its pixels (`RGB;16B`, …): the only trace of 16-bit colour, which Pillow halves by itself."""
    tiles = getattr(image, "tile", None)
    if not tiles:
        return image.mode
    args = tiles[0][3]
    first = args[0] if isinstance(args, tuple) and args else args
    return first if isinstance(first, str) else image.mode


def _to_8_bit(image: Image.Image, raw_mode: str) -> tuple[Image.Image, list[ImageWarning]]:
    """The image in mode `L` or `RGB`."""
    notes: list[ImageWarning] = []
    if image.mode.startswith("I") or image.mode == "F":
        image, reduced = _scale_deep(image, raw_mode)
        return image, [reduced]
    if ";16" in raw_mode:
        notes.append(ImageWarning("depth_reduced", "16 bits per channel were reduced to 8"))
    if image.mode in {"P", "PA"}:
        notes.append(ImageWarning("palette_expanded", "palette colours were written out as RGB"))
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        notes.append(ImageWarning("alpha_removed", "the image has transparency; it was put on white"))
        return _on_white(image), notes
    if image.mode in {"L", "RGB"}:
        return image, notes
    if image.mode == "1":
        notes.append(ImageWarning("bilevel_expanded", "black and white became the grey values 0 and 255"))
        return image.convert("L"), notes
    if image.mode != "P":
        notes.append(
            ImageWarning("color_converted", f"{image.mode} colours were converted to RGB, without ICC profile")
        )
    return image.convert("RGB"), notes


def _on_white(image: Image.Image) -> Image.Image:
    """Alpha composited on white. Grey stays grey."""
    grey = image.mode in {"L", "LA", "La", "1"}
    rgba = image.convert("RGBA")
    white = Image.new("RGBA", rgba.size, "white")
    return Image.alpha_composite(white, rgba).convert("L" if grey else "RGB")


def _scale_deep(image: Image.Image, raw_mode: str) -> tuple[Image.Image, ImageWarning]:
    """Grey values of 12, 16 or 32 bits or floats as 8 bits. Float files do not tell their range: the values do."""
    values = np.asarray(image)
    low, high = float(values.min()), float(values.max())
    if image.mode == "F":
        full = next((full for full in (1.0, 255.0, 65535.0) if high <= full), None)
    else:
        full = 4095.0 if ";12" in raw_mode else next((full for full in (65535.0, 4294967295.0) if high <= full), None)
    if full is None or not low >= 0:  # also refuses NaN
        raise ImageRejected("unsupported_format", "its values have no known range", "save the image with 8 or 16 bits")
    if full == 65535.0 and image.mode != "F":
        reduced = (values.astype(np.uint32) + 128) // 257
    else:
        reduced = np.rint(values.astype(np.float64) * (255.0 / full))
    note = ImageWarning("depth_reduced", f"grey values from 0 to {full:g} were scaled to 0 to 255")
    return Image.fromarray(reduced.astype(np.uint8)), note


def _too_large(max_pixels: int, size: tuple[int, int] | None = None) -> ImageRejected:
    shape = f"it has {size[0]} × {size[1]} pixels" if size else "its decoding needs too much memory"
    return ImageRejected(
        "image_too_large",
        f"the image is too large: {shape}",
        f"RESNETD_MAX_IMAGE_PIXELS is {max_pixels:,}; scale it down: networks see few pixels",
    )


def _corrupt(reason: str) -> ImageRejected:
    return ImageRejected(
        "corrupt_image", f"the image cannot be decoded: {reason[:200]}", "check the file, or save it anew"
    )
