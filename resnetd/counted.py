"""Files that tell how much of them was read, for whoever shows how far an upload is."""

import io
from collections.abc import Callable
from pathlib import Path


def ignore(_: int) -> None:
    """For those who do not want to know."""


class Counted(io.BufferedReader):
    """An open file; `on_bytes` gets the size of each piece that `read` gives."""

    def __init__(self, path: Path, on_bytes: Callable[[int], None] = ignore) -> None:
        super().__init__(io.FileIO(path))
        self._on_bytes = on_bytes

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if data:
            self._on_bytes(len(data))
        return data
