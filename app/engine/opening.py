"""From a client's file to pixels, on threads: the one way in for all that look at images."""

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from app.engine.decode import Read
from app.inference.protocol import ImageError, Notice
from models.images import ImageRejected

Pixels = npt.NDArray[np.uint8]
File = bytes | memoryview

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Opened:
    """An image's pixels (H, W, C), as the network sees them, or why there are none."""

    pixels: Pixels | None
    warnings: tuple[Notice, ...]
    error: ImageError | None
    decode_ms: float


class Opener:
    """Decodes and prepares so many files at once as there are threads."""

    def __init__(self, read: Read, *, shape: tuple[int, int, int], threads: int) -> None:
        """`shape` (H, W, C) is what `read` makes of every image."""
        self._read = read
        self._shape = shape
        self.threads = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    async def open(self, data: File) -> Opened:
        """`here`, on a thread of its own."""
        return await asyncio.get_running_loop().run_in_executor(self.threads, self.here, data)

    def here(self, data: File) -> Opened:
        """On the calling thread. Never raises: what goes wrong with an image is its own error, not a neighbour's."""
        began = time.perf_counter()
        pixels: Pixels | None = None
        warnings: tuple[Notice, ...] = ()
        error: ImageError | None = None
        try:
            made, notes = self._read(data)
            if made.shape != self._shape:
                raise ValueError(f"an image became {made.shape}, not {self._shape}")
            pixels, warnings = made, tuple(Notice(code=each.code, message=each.message) for each in notes)
        except ImageRejected as refused:
            error = ImageError(code=refused.code, message=refused.message, hint=refused.hint)
        except Exception as unforeseen:  # a lack of memory, or a decoder's mistake
            log.exception("an image could not be opened", extra={"bytes": len(data)})
            message = f"the image could not be opened: {type(unforeseen).__name__}"
            error = ImageError(code="internal", message=message, hint="send it again; the server's log says more")
        return Opened(pixels, warnings, error, decode_ms=(time.perf_counter() - began) * 1000)


class Unopened:
    """A file that whoever computes it opens."""

    def __init__(self, opener: Opener, data: File) -> None:
        self._opener = opener
        self._data = data
        self.opened: Opened | None = None

    def __call__(self) -> Pixels | None:
        """Its pixels, None where there are none; `opened` then says why."""
        self.opened = self._opener.here(self._data)
        return self.opened.pixels
