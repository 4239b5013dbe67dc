"""The fast way from a JPEG to pixels gives what the exact way gives, up to a stated tolerance, and the same remarks."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from app.engine import decode as decoding
from app.engine.decode import reader
from models.images import ImageRejected
from models.manifest import Preprocessing

NO_LIMIT = 100_000_000


def to(channels: int = 3, *, height: int = 224, width: int = 224, resize: int = 256, **more: str) -> Preprocessing:
    return Preprocessing(
        channels=channels,
        height=height,
        width=width,
        resize=resize,
        mean=(0.5,) * channels,
        std=(0.5,) * channels,
        **more,
    )


def scene(width: int, height: int, *, seed: int = 0) -> Image.Image:
    """Smooth colours with edges, as photographs have them: noise of two scales, blurred, and a few boxes."""
    draw = np.random.default_rng(seed)
    coarse = Image.fromarray(draw.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize((width, height), 3)
    fine = Image.fromarray(draw.integers(0, 256, (height, width, 3), dtype=np.uint8)).filter(
        ImageFilter.GaussianBlur(2)
    )
    image = Image.blend(coarse, fine, 0.2)
    for _ in range(6):
        left, top = int(draw.integers(0, width)), int(draw.integers(0, height))
        image.paste(tuple(int(v) for v in draw.integers(0, 256, 3)), (left, top, left + width // 7, top + height // 5))
    return image


def jpeg(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **({"quality": 90} | options))
    return file.getvalue()


def both(data: bytes, pre: Preprocessing, *, max_pixels: int = NO_LIMIT) -> tuple[np.ndarray, np.ndarray]:
    fast, remarks = reader(pre, max_pixels=max_pixels, exact=False)(memoryview(data))
    exact, expected = reader(pre, max_pixels=max_pixels, exact=True)(data)
    assert remarks == expected
    assert fast.dtype == np.uint8
    assert fast.shape == exact.shape == (pre.height, pre.width, pre.channels)
    return fast, exact


def difference(fast: np.ndarray, exact: np.ndarray) -> np.ndarray:
    return np.abs(fast.astype(int) - exact.astype(int))


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (224, 224), (256, 256), (100, 80), (1023, 700), (241, 999)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_where_decoding_is_not_scaled_a_value_differs_by_a_rounding_at_most(size, interpolation):
    apart = difference(*both(jpeg(scene(*size)), to(interpolation=interpolation)))
    assert apart.max() <= 2  # one rounding a direction
    assert apart.mean() < 0.05


@pytest.mark.parametrize("size", [(1600, 1100), (1651, 1533), (2300, 2080)])
def test_where_it_is_scaled_the_mean_difference_is_half_a_value_at_most(size):
    apart = difference(*both(jpeg(scene(*size)), to()))
    assert 0 < apart.mean() <= 0.5
    assert apart.max() <= 12


def test_decoding_is_scaled_only_where_twice_the_size_that_is_resized_to_stays(monkeypatch):
    seen = []
    real = decoding.simplejpeg.decode_jpeg
    monkeypatch.setattr(decoding.simplejpeg, "decode_jpeg", lambda *a, **k: seen.append(real(*a, **k)) or seen[-1])
    for size in ((1022, 1100), (1024, 1100), (2048, 2100)):
        both(jpeg(scene(*size)), to())
    assert [image.shape[:2] for image in seen] == [(1100, 1022), (550, 512), (525, 512)]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_it_turns_images_upright_as_the_exact_way_does(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert difference(*both(jpeg(scene(300, 200), exif=exif), to(height=96, width=64, resize=96))).max() <= 1


@pytest.mark.parametrize("orientation", [0, 9, 65535])
@pytest.mark.parametrize("size", [(300, 200), (64, 96)])
def test_an_orientation_that_does_not_exist_turns_nothing(orientation, size):
    exif = Image.Exif()
    exif[0x0112] = orientation
    wide = to(height=64, width=96, resize=96)  # turned by mistake, the second size would be taken for this one
    odd, upright = (both(jpeg(scene(*size), **options), wide) for options in ({"exif": exif}, {}))
    assert difference(*odd).max() <= 2
    for ours, theirs in zip(odd, upright, strict=True):
        assert np.array_equal(ours, theirs)


def test_where_torch_lacks_memory_the_exact_way_is_taken(monkeypatch):
    def lacking(*_: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setitem(decoding._RESIZE, "bilinear", lacking)
    assert difference(*both(jpeg(scene(300, 200)), to())).max() == 0


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_grey_and_colour_become_each_other_as_in_the_exact_way(mode, channels):
    assert difference(*both(jpeg(scene(300, 200).convert(mode)), to(channels))).max() <= 2
    small = jpeg(scene(28, 28).convert(mode))
    assert difference(*both(small, to(channels, height=28, width=28, resize=28))).max() == 0


@pytest.mark.parametrize(
    "data",
    [
        jpeg(scene(300, 200).convert("CMYK")),
        jpeg(scene(3000, 20)),  # so long that most of it would be resized for nothing
        jpeg(scene(300, 200), progressive=True),
        jpeg(scene(300, 200), keep_rgb=True),
    ],
    ids=["cmyk", "long", "progressive", "rgb"],
)
def test_odd_jpegs_give_the_same(data):
    assert difference(*both(data, to())).max() <= 1


@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "BMP"])
def test_other_formats_take_the_exact_way(file_format):
    file = io.BytesIO()
    scene(300, 200).save(file, file_format)
    assert difference(*both(file.getvalue(), to())).max() == 0


@pytest.mark.parametrize("cut", [0, 2, 100, 700, 0.5, 0.98])
def test_what_is_damaged_is_refused_with_the_same_words(cut):
    data = jpeg(scene(300, 200))
    part = data[: cut if isinstance(cut, int) else int(len(data) * cut)]
    said = []
    for exact in (False, True):
        with pytest.raises(ImageRejected) as refused:
            reader(to(), max_pixels=NO_LIMIT, exact=exact)(part)
        said.append((refused.value.code, refused.value.message, refused.value.hint))
    assert said[0] == said[1]


def test_bytes_behind_or_between_markers_are_forgiven_or_refused_alike():
    draw = np.random.default_rng(0)
    data = bytearray(jpeg(scene(300, 200)))
    for _ in range(60):
        broken = bytearray(data)
        for place in draw.integers(2, len(data), 3):
            broken[place] = draw.integers(0, 256)
        outcomes = []
        for exact in (False, True):
            try:
                outcomes.append(reader(to(), max_pixels=NO_LIMIT, exact=exact)(bytes(broken))[0])
            except ImageRejected as refused:
                outcomes.append(refused.code)
        if isinstance(outcomes[1], str):
            assert outcomes[0] == outcomes[1]
        else:
            assert difference(*outcomes).max() <= 1


def test_the_limit_on_pixels_holds_before_anything_is_decoded(monkeypatch):
    monkeypatch.setattr(decoding.simplejpeg, "decode_jpeg", lambda *a, **k: pytest.fail("it was decoded"))
    with pytest.raises(ImageRejected) as refused:
        reader(to(), max_pixels=300 * 200 - 1, exact=False)(jpeg(scene(300, 200)))
    assert refused.value.code == "image_too_large"


ROOT = Path(__file__).resolve().parents[3]
PHOTOS = Path(os.environ.get("RESNETD_TEST_DATA", ROOT.parent / "shared" / "data")) / "photos"


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="no photographs in RESNETD_TEST_DATA (by default ../shared/data)")
def test_photographs_differ_by_roundings_at_most():
    for path in sorted(PHOTOS.glob("*.jpg"))[:20]:
        fast, exact = both(path.read_bytes(), to())
        with Image.open(path) as image:
            scaled = min(image.size) >= 1024
        assert difference(fast, exact).max() <= (12 if scaled else 2), path.name
