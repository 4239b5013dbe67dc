"""What the first bytes of an upload say, to the HTTP edge and to the importer alike."""

import bz2
import gzip
import io
import lzma
import tarfile

import pytest
from archives import cats_and_dogs, png, tarred, zipped
from PIL import Image

from store.archive_kinds import HEAD_BYTES, other_than_archive
from worker.job_process import JobRefused


def v7(files: dict[str, bytes]) -> bytes:
    """As the oldest tars are: headers without a magic, known by their checksum alone."""
    out = bytearray()
    for name, data in files.items():
        info = tarfile.TarInfo(name)
        info.size = len(data)
        header = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
        header[257:265] = bytes(8)
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        out += header + data + bytes(-len(data) % 512)
    return bytes(out) + bytes(1024)


def pax(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "c" * 40}) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


FILES = cats_and_dogs()
ARCHIVES = {
    "zip": zipped(FILES),
    "tar": tarred(FILES),
    "tar.gz": tarred(FILES, "gz"),
    "tar.bz2": tarred(FILES, "bz2"),
    "tar.xz": tarred(FILES, "xz"),
    "pax": pax(FILES),
    "v7": v7(FILES),
    "v7.gz": gzip.compress(v7(FILES)),
    "a class called like an image's first bytes": tarred({f"BM {name}": data for name, data in FILES.items()}),
}


@pytest.mark.parametrize("data", ARCHIVES.values(), ids=ARCHIVES)
def test_every_archive_that_is_let_in_by_its_head_is_imported(run_import, data):
    assert other_than_archive(data[:HEAD_BYTES], whole=False) is None
    assert run_import(data)[0].report.images == 20


EMPTY = {
    "zip": zipped({}),
    "tar": tarred({}),
    "tar.gz": tarred({}, "gz"),
    "bz2": bz2.compress(b""),
    "xz": lzma.compress(b""),
}
DAMAGED = {
    "zip": ARCHIVES["zip"][:100],
    "tar.gz": ARCHIVES["tar.gz"][:40],
    "gzip": b"\x1f\x8b" + bytes(range(200)),
    "tar": b"\xff" * 100 + ARCHIVES["tar"][100:1000],
}


@pytest.mark.parametrize("data", [*EMPTY.values(), *DAMAGED.values()], ids=[*EMPTY, *DAMAGED])
def test_an_empty_or_damaged_archive_is_let_in_and_its_import_says_what_is_wrong(run_import, data):
    assert other_than_archive(data, whole=True) is None
    with pytest.raises(JobRefused) as caught:
        run_import(data)
    assert caught.value.code in {"no_images", "broken_archive", "unsupported_archive"}


def bmp() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (40, 40)).save(out, "BMP")
    return out.getvalue()


IDX = b"\0\0\x08\x01\0\0\0\x05" + bytes(5)
OTHERS = {
    "image": png(0),
    "BMP": bmp(),
    "text": b"BZh is how bzip2 files begin",
    "7z": b"7z\xbc\xaf\x27\x1c....",
    "zstd": b"\x28\xb5\x2f\xfd" + bytes(600),
    "IDX": IDX,
    "IDX.gz": gzip.compress(IDX),
    "image.gz": gzip.compress(png(0, size=(40, 40))),
    "noise": bytes(range(1, 256)) * 3,
}


@pytest.mark.parametrize("data", OTHERS.values(), ids=OTHERS)
def test_the_importer_refuses_what_the_head_tells_to_be_no_archive_in_the_same_words(run_import, data):
    other = other_than_archive(data[:HEAD_BYTES], whole=True)
    assert other is not None
    with pytest.raises(JobRefused) as caught:
        run_import(data)
    assert (caught.value.code, caught.value.message) == ("unsupported_archive", other.reason)


@pytest.mark.parametrize(
    ("data", "kind"),
    [(bmp(), "image"), (b"BMW\nAudi\n", "text"), (IDX, "idx"), (b"%PDF-1.7\n", "foreign"), (b"\1\2\3", "unknown")],
)
def test_the_head_tells_what_may_be_part_of_a_dataset(data, kind):
    other = other_than_archive(data, whole=True)
    assert other is not None
    assert other.kind == kind
