"""Files that tell how much of them was read, for whoever shows how far an upload is."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path

PIECE = 1 << 20  # bytes of an upload sent at once


def ignore(_: int) -> None:
    """For those who do not want to know."""


class Counted(io.BufferedReader):
    """An open file; `on_bytes` gets the size of each piece that `read` gives, a negative one where it goes back."""

    def __init__(self, path: Path, on_bytes: Callable[[int], None] = ignore) -> None:
        super().__init__(io.FileIO(path))
        self._on_bytes = on_bytes
        self._told = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if data:
            self._told += len(data)
            self._on_bytes(len(data))
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        at = super().seek(offset, whence)
        if at < self._told:
            self._on_bytes(at - self._told)
            self._told = at
        return at


class Pieces:
    """A file as a request's body: whole each time that the request is sent."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file

    def __iter__(self) -> Iterator[bytes]:
        self._file.seek(0)
        while piece := self._file.read(PIECE):
            yield piece
