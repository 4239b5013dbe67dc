"""What a split tells of its images without decoding them."""

import hashlib
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from store.splits import Split


def of_files(folder: Path, files: list[bytes]) -> Split:
    lengths = [len(file) for file in files]
    starts = np.cumsum([0, *lengths[:-1]])
    np.save(folder / "train.labels.npy", np.zeros(len(files), dtype=np.int64))
    np.save(folder / "train.index.npy", np.stack([starts, lengths], axis=1).astype(np.int64))
    (folder / "train.blob").write_bytes(b"".join(files))
    return Split(folder, "train")


def with_checksums(folder: Path, images: list[bytes]) -> None:
    np.save(folder / "train.crc32.npy", np.array([zlib.crc32(image) for image in images], dtype=np.uint32))


def test_a_file_that_is_no_longer_what_was_imported_is_refused_and_the_others_are_given(tmp_path: Path) -> None:
    files = [b"first", b"second", b"third"]
    with_checksums(tmp_path, files)
    of_files(tmp_path, [b"first", b"sEcond", b"third"])
    split = Split(tmp_path, "train", refuse=LookupError)
    assert [split.encoded(index) for index in (0, 2)] == [b"first", b"third"]
    with pytest.raises(LookupError, match="image 1 is not what was imported"):
        split.encoded(1)


def test_pixels_are_read_to_see_whether_they_have_changed(tmp_path: Path) -> None:
    """A flipped bit, and a page of zeros; `between` is called meanwhile."""
    pixels = np.random.default_rng(0).integers(1, 256, (3000, 5, 4, 3), dtype=np.uint8)
    with_checksums(tmp_path, [image.tobytes() for image in pixels])
    np.save(tmp_path / "train.labels.npy", np.zeros(3000, dtype=np.int64))
    np.save(tmp_path / "train.images.npy", pixels)
    looks: list[None] = []
    Split(tmp_path, "train").check_pixels(lambda: looks.append(None))
    assert len(looks) == 3
    content = (tmp_path / "train.images.npy").read_bytes()
    header = len(content) - pixels.nbytes
    for where, changed in ((header + 2000 * 60 + 7, bytes([content[header + 2000 * 60 + 7] ^ 4])), (4096, bytes(4096))):
        spoilt = content[:where] + changed + content[where + len(changed) :]
        (tmp_path / "train.images.npy").write_bytes(spoilt)
        with pytest.raises(ValueError, match=f"image {(where - header) // 60} is not what was imported"):
            Split(tmp_path, "train").check_pixels(lambda: None)


def test_images_without_checksums_are_taken_as_they_are(tmp_path: Path) -> None:
    split = of_files(tmp_path, [b"first"])
    assert split.encoded(0) == b"first"
    split.check_pixels(lambda: None)


def hashes(split: Split) -> npt.NDArray[np.uint64]:
    return np.array([split.content_hash(index) for index in range(len(split))], dtype=np.uint64)


def test_the_same_files_have_the_same_hash_and_files_of_another_end_or_length_another(tmp_path: Path) -> None:
    long = bytes(range(256)) * 40
    files = [b"short", long, b"short", long[:-1] + b"x", long + long, b"shore", long]
    found = hashes(of_files(tmp_path, files))
    assert found[[0, 1]].tolist() == found[[2, 6]].tolist()
    assert len(set(found.tolist())) == 5


@pytest.mark.parametrize("kind", ["BMP", "TIFF"])
def test_uncompressed_files_of_one_length_that_end_alike_have_each_a_hash_of_their_own(
    tmp_path: Path, kind: str
) -> None:
    """Pictures on black: the files' last 4 KB are the same."""
    files = []
    for shade in (60, 61, 62, 60):
        image = Image.new("RGB", (80, 60))
        image.paste((shade, 0, 0), (30, 25, 50, 35))
        file = BytesIO()
        image.save(file, kind)
        files.append(file.getvalue())
    assert len({(len(file), file[-4096:]) for file in files}) == 1
    found = hashes(of_files(tmp_path, files)).tolist()
    assert found[0] == found[3]
    assert len(set(found)) == 3


def test_a_compressed_file_has_the_hash_of_every_version(tmp_path: Path) -> None:
    """Its hold-outs, and so the checkpoints of its runs, stay valid."""
    jpeg = b"\xff\xd8\xff" + bytes(range(256)) * 40
    (found,) = hashes(of_files(tmp_path, [jpeg])).tolist()
    assert found == int.from_bytes(
        hashlib.blake2b(len(jpeg).to_bytes(8, "little") + jpeg[-4096:], digest_size=8).digest(), "little"
    )


def test_images_of_the_same_pixels_have_the_same_hash(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 1), dtype=np.uint8)
    np.save(tmp_path / "train.labels.npy", np.zeros(4, dtype=np.int64))
    np.save(tmp_path / "train.images.npy", pixels[[0, 1, 0, 2]])
    found = hashes(Split(tmp_path, "train")).tolist()
    assert found[0] == found[2]
    assert len(set(found)) == 3
