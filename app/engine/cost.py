"""What decoding a file costs, told by its first bytes and markers, before anybody opens it."""

import math

_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # JPEG markers: the image's size and components follow
_SCAN = 0xDA
_MARKERS = 200  # that may precede the first scan: a photograph has some twenty
_FEW_SCANNED = 10_000_000  # pixels of a JPEG, times its scans
_FEW_PIXELS = 1 << 20  # of a PNG, which holds its decoder for some 15 ms then, and for more than half a second at most


def cheap(data: bytes | memoryview) -> bool:
    """Whether a file that is short is also soon decoded: its bytes do not tell, a few hundred may be 40 million pixels.

    A PNG of few pixels is, and a JPEG of few in all of its scans together, of which a progressive one has ten and may
    have thousands; what others hold is seen only by opening them.
    """
    start = bytes(data[:24])
    if start.startswith(b"\x89PNG\r\n\x1a\n") and start[12:16] == b"IHDR":
        return int.from_bytes(start[16:20]) * int.from_bytes(start[20:24]) <= _FEW_PIXELS
    return start.startswith(b"\xff\xd8\xff") and _scanned_pixels(data) <= _FEW_SCANNED


def _scanned_pixels(data: bytes | memoryview) -> float:
    """A JPEG's pixels times its scans, by its markers (ITU-T T.81, annex B); infinite where they lead nowhere."""
    at, pixels, components, interleaved = 2, math.inf, 0, False
    for _ in range(_MARKERS):
        if at + 10 > len(data) or data[at] != 0xFF:
            break
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4])
        if marker in _FRAMES:
            pixels = int.from_bytes(data[at + 5 : at + 7]) * int.from_bytes(data[at + 7 : at + 9])
            components, interleaved = data[at + 9], marker in (0xC0, 0xC1)
        elif marker == _SCAN:
            only = interleaved and data[at + 4] == components  # all there is, in one scan
            return pixels if only else pixels * bytes(data).count(bytes((0xFF, _SCAN)))
        at += 1 if marker == 0xFF else 2 + length  # bytes of filling may precede a marker
    return math.inf
