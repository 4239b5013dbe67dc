"""A zip written from front to end, of members whose sizes nobody knows before they have passed."""

import zipfile
from collections.abc import Callable
from typing import IO


class ZipStream:
    """Members as they are, not compressed: `begin`, `write`, `end` for each, then `finish`.

    Its methods block: call them in threads, one at a time. The same members give the same bytes.
    """

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._out = _Out(write)
        self._zip = zipfile.ZipFile(self._out, "w", zipfile.ZIP_STORED)
        self._member: IO[bytes] | None = None

    def begin(self, name: str) -> None:
        # With room for 64-bit sizes, for a member may be larger than 4 GiB. ZipInfo's own date is 1 January 1980.
        self._member = self._zip.open(zipfile.ZipInfo(name), "w", force_zip64=True)

    def write(self, data: bytes) -> None:
        if self._member is not None:
            self._member.write(data)

    def end(self) -> None:
        if self._member is not None:
            self._member.close()

    def finish(self) -> None:
        self._zip.close()

    def abandon(self) -> None:
        """Write nothing any more; for one that is finished it changes nothing. Never blocks.

        zipfile would else end the archive when it is collected, in a file that may be another one's by then.
        """
        self._out.close()
        self.end()
        self.finish()


class _Out:
    """What zipfile writes to: it can tell no position, so that sizes stand behind each member and not before it."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write: Callable[[bytes], None] | None = write

    def write(self, data: bytes, /) -> int:
        if self._write is not None:
            self._write(data)
        return len(data)

    def flush(self) -> None:
        """Zipfile asks for it; the upload has its own way of reaching the disk."""

    def close(self) -> None:
        """What is written from now on goes nowhere."""
        self._write = None
