"""What the first bytes of an upload say: an archive that the importer reads, or what it is instead. Nothing is opened.

The HTTP edge asks before it acknowledges an upload, the importer before it hands one to a library.
"""

import tarfile
import zlib
from dataclasses import dataclass
from typing import Literal

HEAD_BYTES = 4096  # enough for a gzip's own header and a tar's first block inside it
TAR_BLOCK = 512
ARCHIVE_HINT = (
    "Send one zip or tar (plain, gzip, bzip2 or xz) with a folder for each class, the IDX files, or a manifest and its "
    "images."
)

ZIP = (b"PK\3\4", b"PK\5\6", b"PK\7\x08")
GZIP = b"\x1f\x8b"
XZ = b"\xfd7zXZ\0"
_BZIP2_BLOCKS = (b"1AY&SY", b"\x17\x72\x45\x38\x50\x90")  # of data; of the end, where there is no data
_FOREIGN = {
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!\x1a\x07": "RAR",
    b"\x28\xb5\x2f\xfd": "Zstandard",
    b"\x89HDF\r\n\x1a\n": "HDF5",
    b"PAR1": "Parquet",
    b"\x93NUMPY": "NumPy",
    b"%PDF": "PDF",
}
_IMAGES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"II*\0", b"MM\0*")
_TEXT = bytes({*b"\t\n\f\r", *range(32, 127), *range(128, 256)})


@dataclass(frozen=True)
class Other:
    """What is no archive that can be imported: said without a capital or a full stop."""

    kind: Literal["foreign", "image", "idx", "text", "unknown"]
    reason: str


def other_than_archive(head: bytes, *, whole: bool) -> Other | None:
    """What a file is that begins with `head`; None for an archive, and where so few bytes do not tell.

    `head` is HEAD_BYTES of it or more, or all of it: `whole`.
    """
    if head.startswith((*ZIP, XZ)) or is_bzip2(head):
        return None
    if not head.startswith(GZIP):
        return other_than_tar(head)
    try:
        stream = zlib.decompressobj(wbits=31)
        begun = stream.decompress(head, TAR_BLOCK)
    except zlib.error:  # a damaged one: its import says so
        return None
    if len(begun) < TAR_BLOCK and not (whole and stream.eof):
        return None
    return other_than_tar(begun)


def other_than_tar(head: bytes) -> Other | None:
    """The same of a file that is not compressed and no zip; its first TAR_BLOCK bytes are enough."""
    if is_tar(head):
        return None
    for magic, what in _FOREIGN.items():
        if head.startswith(magic):
            return Other("foreign", f"{what} files cannot be imported")
    is_text = bool(head) and not head[:TAR_BLOCK].translate(None, _TEXT)
    is_bmp = head.startswith(b"BM") and not is_text  # "BMW" may be the first of the names of classes
    if head.startswith(_IMAGES) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP") or is_bmp:
        return Other("image", "a single image is not an archive of images")
    if is_idx(head):
        return Other("idx", "a single IDX file is not a dataset: images and their labels belong together")
    if is_text:
        return Other("text", "the file is text, not an archive")
    return Other("unknown", "the file is neither a zip nor a tar archive")


def is_bzip2(head: bytes) -> bool:
    return head[:3] == b"BZh" and head[3:4] in {b"%d" % size for size in range(1, 10)} and head[4:10] in _BZIP2_BLOCKS


def is_tar(head: bytes) -> bool:
    """Whether a tar begins so: with a header, a damaged one that still has its magic, or the zeros of an empty one."""
    block = head[:TAR_BLOCK]
    if len(block) < TAR_BLOCK:
        return False
    if block[257:262] == b"ustar" or block == bytes(TAR_BLOCK):
        return True
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError):
        return False
    return True


def is_idx(head: bytes) -> bool:
    """Whether a file begins like the IDX format: two zero bytes, an element type, a number of dimensions."""
    return len(head) >= 4 and head[:2] == b"\0\0" and head[2] in {8, 9, 11, 12, 13, 14} and 1 <= head[3] <= 4
