"""From bytes to pixels: what is converted, what is refused, and that nothing else comes out."""

import io
import random
import struct
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from models import images
from models.images import Decoded, ImageRejected, decode, pixels, prepare
from models.manifest import Preprocessing
from models.pixel_budget import PixelBudget
from store.settings import Settings

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (12, 16, 3), dtype=np.uint8)
ORIENTATIONS = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_90"}
ORIENTATIONS |= {7: "TRANSVERSE", 8: "ROTATE_270"}


def saved(image: Image.Image, file_format: str = "PNG", **options) -> bytes:
    out = io.BytesIO()
    image.save(out, file_format, **options)
    return out.getvalue()


def opened(data: bytes) -> Decoded:
    return decode(data, max_pixels=1_000_000)


def codes(decoded: Decoded) -> list[str]:
    return [warning.code for warning in decoded.warnings]


def to(channels: int, height: int, width: int, resize: int | None = None) -> Preprocessing:
    return Preprocessing(
        channels=channels,
        height=height,
        width=width,
        resize=resize or max(height, width),
        mean=(0.5,) * channels,
        std=(0.5,) * channels,
    )


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_each_of_the_six_formats_opens(file_format):
    decoded = opened(saved(Image.fromarray(NOISE), file_format))
    assert decoded.image.mode == "RGB"
    assert decoded.image.size == (16, 12)
    assert codes(decoded) == (["palette_expanded"] if file_format == "GIF" else [])


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "TIFF"])
def test_lossless_files_keep_every_pixel(file_format):
    assert np.array_equal(pixels(opened(saved(Image.fromarray(NOISE), file_format)).image), NOISE)


@pytest.mark.parametrize("file_format", ["PPM", "ICO", "PCX", "TGA"])
def test_other_formats_of_pillow_stay_closed(file_format):
    with pytest.raises(ImageRejected) as caught:
        opened(saved(Image.fromarray(NOISE), file_format))
    assert caught.value.code == "unsupported_format"


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_exif_orientation_is_applied_in_every_format(file_format, orientation):
    upright = Image.fromarray(
        np.kron(RNG.integers(0, 256, (3, 4), dtype=np.uint8), np.ones((16, 16), np.uint8))
    ).convert("RGB")
    stored = upright.transpose(getattr(Image.Transpose, ORIENTATIONS[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if file_format == "WEBP" else {}
    decoded = opened(saved(stored, file_format, exif=exif, **options))
    difference = np.abs(pixels(decoded.image).astype(int) - pixels(upright))
    assert difference.max() <= (8 if file_format == "JPEG" else 0)
    assert codes(decoded) == ["exif_rotated"]


def test_16_bit_grey_is_scaled_over_its_whole_range():
    values = np.array([[0, 128, 129, 257 * 7, 65535]], dtype=np.uint16)
    for file_format in ("PNG", "TIFF"):
        decoded = opened(saved(Image.fromarray(values), file_format))
        assert pixels(decoded.image)[0, :, 0].tolist() == [0, 0, 1, 7, 255]
        assert codes(decoded) == ["depth_reduced"]


def test_16_bit_colour_png_is_reduced_and_says_so():
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    row = b"\0" + struct.pack(">3H", 65535, 257 * 9, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0))
    data += chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")
    decoded = opened(data)
    assert pixels(decoded.image).tolist() == [[[255, 9, 0]]]
    assert codes(decoded) == ["depth_reduced"]


@pytest.mark.parametrize("full", [1.0, 255.0, 65535.0])
def test_float_tiff_is_scaled_from_the_range_its_values_show(full):
    decoded = opened(saved(Image.fromarray(np.array([[0, full / 3, full]], dtype=np.float32)), "TIFF"))
    assert pixels(decoded.image).ravel().tolist() == [0, 85, 255]
    assert codes(decoded) == ["depth_reduced"]


@pytest.mark.parametrize("bad", [np.nan, -1.0, 1e9])
def test_float_tiff_without_a_known_range_is_refused(bad):
    with pytest.raises(ImageRejected, match="range"):
        opened(saved(Image.fromarray(np.array([[0.5, bad]], dtype=np.float32)), "TIFF"))


def test_transparent_images_are_put_on_white():
    rgba = np.zeros((2, 2, 4), np.uint8)
    rgba[0, 0] = (10, 20, 30, 255)
    decoded = opened(saved(Image.fromarray(rgba)))
    assert pixels(decoded.image).tolist() == [[[10, 20, 30], [255] * 3], [[255] * 3, [255] * 3]]
    assert codes(decoded) == ["alpha_removed"]


def test_grey_with_alpha_stays_grey():
    decoded = opened(saved(Image.fromarray(np.array([[[7, 255], [7, 0]]], np.uint8))))
    assert decoded.image.mode == "L"
    assert pixels(decoded.image).ravel().tolist() == [7, 255]


def test_palette_with_transparency_is_expanded_and_put_on_white():
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putpixel((1, 0), 1)
    decoded = opened(saved(image, transparency=1))
    assert pixels(decoded.image).tolist() == [[[255, 0, 0], [255, 255, 255]]]
    assert codes(decoded) == ["palette_expanded", "alpha_removed"]


def test_black_and_white_and_cmyk_become_8_bit_images():
    bilevel = opened(saved(Image.new("1", (3, 3), 1)))
    assert (bilevel.image.mode, codes(bilevel)) == ("L", ["bilevel_expanded"])
    assert pixels(bilevel.image).min() == 255
    cmyk = opened(saved(Image.new("CMYK", (3, 3), (0, 255, 255, 0)), "TIFF"))
    assert pixels(cmyk.image)[0, 0].tolist() == [255, 0, 0]
    assert codes(cmyk) == ["color_converted"]


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "TIFF", "PNG"])
def test_of_several_frames_the_first_is_used(file_format):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    options = {"lossless": True} if file_format == "WEBP" else {}
    decoded = opened(saved(frames[0], file_format, save_all=True, append_images=frames[1:], **options))
    assert pixels(decoded.image)[0, 0].tolist() == [255, 0, 0]
    assert "first_frame_only" in codes(decoded)


def test_size_is_refused_from_the_header_alone():
    header = saved(Image.new("L", (2000, 2000)))[:100]  # the pixels are not even there
    with pytest.raises(ImageRejected) as caught:
        opened(header)
    assert caught.value.code == "image_too_large"
    assert "2000 × 2000" in caught.value.message


def test_beyond_pillows_own_bound_it_is_too_large_as_well():
    data = bytearray(saved(Image.new("L", (1, 1)), "BMP"))
    data[18:26] = (60000).to_bytes(4, "little") * 2
    with pytest.raises(ImageRejected) as caught:
        opened(bytes(data))
    assert caught.value.code == "image_too_large"


def test_a_limit_that_pillow_would_not_keep_is_no_setting():
    assert Image.MAX_IMAGE_PIXELS is not None
    most = 2 * Image.MAX_IMAGE_PIXELS
    assert Settings(max_image_pixels=most).max_image_pixels == most
    with pytest.raises(ValidationError, match=f"less than or equal to {most}"):
        Settings(max_image_pixels=most + 1)


def test_empty_bytes_and_text_have_their_own_codes():
    for data, code in ((b"", "empty_image"), (b"hello", "unsupported_format"), (b"\x89PNG\r\n\x1a\n", "corrupt_image")):
        with pytest.raises(ImageRejected) as caught:
            opened(data)
        assert caught.value.code == code


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_a_truncated_file_is_corrupt(file_format):
    data = saved(Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)), file_format)
    with pytest.raises(ImageRejected) as caught:
        opened(data[: len(data) // 2])
    assert caught.value.code == "corrupt_image"


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_mutated_files_decode_or_are_rejected_and_raise_nothing_else(file_format):
    rng = random.Random(file_format)
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {} if file_format in {"GIF", "BMP"} else {"exif": exif}
    original = saved(Image.fromarray(NOISE), file_format, **options)
    outcomes = set()
    for _ in range(400):
        data = bytearray(original)
        for _ in range(rng.randint(0, 6)):
            data[rng.randrange(min(len(data), 120))] = rng.randrange(256)
        if rng.random() < 0.2:
            del data[rng.randrange(len(data)) :]
        try:
            outcomes.add(opened(bytes(data)).image.mode)
        except ImageRejected as error:
            outcomes.add(error.code)
    assert outcomes & {"L", "RGB"}
    assert "corrupt_image" in outcomes


@pytest.mark.parametrize(("shape", "channels"), [((28, 28, 1), 1), ((32, 32, 3), 3)])
def test_an_image_that_fits_passes_to_the_bit(shape, channels):
    array = RNG.integers(0, 256, shape, dtype=np.uint8)
    image = Image.fromarray(array[:, :, 0] if channels == 1 else array)
    prepared, notes = prepare(Decoded(image), to(channels, *shape[:2], resize=40))
    assert np.array_equal(prepared, array)
    assert prepared.flags.writeable
    assert notes == ()


def test_prepare_changes_channels_and_says_so():
    grey, notes = prepare(Decoded(Image.fromarray(np.repeat(NOISE[:, :, :1], 3, axis=2))), to(1, 12, 16))
    assert np.array_equal(grey, NOISE[:, :, :1])
    assert [note.code for note in notes] == ["converted_to_grayscale"]
    colour, notes = prepare(Decoded(Image.fromarray(NOISE[:, :, 0])), to(3, 12, 16))
    assert np.array_equal(colour, np.repeat(NOISE[:, :, :1], 3, axis=2))
    assert [note.code for note in notes] == ["converted_to_rgb"]


@pytest.mark.parametrize("size", [(100, 75), (75, 100), (64, 64), (40, 31), (33, 200)])
def test_prepare_equals_resizing_the_shorter_side_and_cutting_the_centre(size):
    image = Image.fromarray(RNG.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    prepared, _ = prepare(Decoded(image), to(3, 32, 32, resize=36))
    shorter = min(size)
    width, height = (36 if side == shorter else 36 * side // shorter for side in size)
    left, top = round((width - 32) / 2), round((height - 32) / 2)
    whole = image.resize((width, height), Image.Resampling.BILINEAR).crop((left, top, left + 32, top + 32))
    assert np.abs(prepared.astype(int) - np.asarray(whole)).max() <= 1


def test_prepare_cuts_without_touching_a_pixel_where_the_scale_is_one():
    prepared, _ = prepare(Decoded(Image.fromarray(NOISE)), to(3, 10, 10, resize=12))
    assert np.array_equal(prepared, NOISE[1:11, 3:13])


def test_a_very_long_image_is_prepared_without_being_scaled_whole():
    prepared, _ = prepare(Decoded(Image.new("RGB", (1, 900_000), "red")), to(3, 224, 224, resize=256))
    assert prepared.shape == (224, 224, 3)
    assert prepared[:, :, 0].min() == 255


def test_a_png_with_one_wrong_byte_in_its_pixels_is_refused_as_plain_pillow_refuses_it():
    pixels = np.random.default_rng(3).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    whole = file.getvalue()
    start = whole.index(b"IDAT") + 4
    for at in range(start + 10, len(whole) - 30, 331):
        broken = bytearray(whole)
        broken[at] ^= 0x10
        with pytest.raises(ImageRejected) as refused:
            decode(bytes(broken), max_pixels=10_000)
        assert refused.value.code == "corrupt_image"


def test_large_images_are_decoded_as_many_at_once_as_their_pixels_allow(monkeypatch):
    at_once, most, lock = 0, 0, threading.Lock()
    convert = images._to_8_bit

    def slow(*args):
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        time.sleep(0.02)
        with lock:
            at_once -= 1
        return convert(*args)

    monkeypatch.setattr(images, "_to_8_bit", slow)
    monkeypatch.setattr(images, "_SMALL", 100)
    monkeypatch.setattr(images, "_AT_ONCE", PixelBudget(2 * NOISE.shape[0] * NOISE.shape[1]))
    data = saved(Image.fromarray(NOISE))
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(opened, [data] * 12))
    assert most == 2
    assert all(np.array_equal(pixels(each.image), NOISE) for each in found)


def test_an_image_over_the_whole_budget_goes_alone_and_one_that_fails_gives_its_pixels_back():
    budget = PixelBudget(10)
    with budget.of(50):
        pass
    with pytest.raises(ZeroDivisionError), budget.of(10):
        1 / 0  # noqa: B018 - it is raised
    with budget.of(4), budget.of(6):
        waiting = threading.Thread(target=lambda: budget.of(1).__enter__(), daemon=True)
        waiting.start()
        waiting.join(0.1)
        assert waiting.is_alive()
    waiting.join(20)
    assert not waiting.is_alive()
