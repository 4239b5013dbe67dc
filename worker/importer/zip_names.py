"""What a zip's members are called: the bytes of their headers, which many programs write without their encoding."""

import struct
import zipfile
import zlib

from worker.importer.names import decoded

_UTF8 = 0x800  # the flag by which a header says that its name is UTF-8
_UNICODE_PATH = 0x7075  # Info-ZIP's extra field with the name in UTF-8 (APPNOTE.TXT, 4.6.9)


def zip_name(info: zipfile.ZipInfo) -> str:
    """A member's name with slashes. Windows PowerShell's Compress-Archive writes backslashes, and no slash.

    A name with both is left to be refused: there a backslash may be half of a character of another alphabet.
    """
    name = _in_unicode(info)
    from_windows = info.create_system == 0 and "/" not in name[:-1]
    return name.replace("\\", "/") if from_windows else name


def _in_unicode(info: zipfile.ZipInfo) -> str:
    if info.flag_bits & _UTF8:
        return info.orig_filename
    raw = info.orig_filename.encode("cp437")  # as zipfile decoded it; macOS and Debian write UTF-8 without the flag
    return _unicode_path(info.extra, raw) or decoded(raw)


def _unicode_path(extra: bytes, raw: bytes) -> str | None:
    """The name in the extra field for that; None where there is none, or it was not made for the name `raw`."""
    while len(extra) >= 4:
        kind, size = struct.unpack_from("<HH", extra)
        field, extra = extra[4 : 4 + size], extra[4 + size :]
        if kind == _UNICODE_PATH and field[:5] == struct.pack("<BL", 1, zlib.crc32(raw)):
            try:
                return field[5:].decode()
            except UnicodeDecodeError:
                return None
    return None
