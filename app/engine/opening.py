"""From a client's file to pixels, on threads: the one way in for all that look at images."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from app.engine.decode import Read
from app.inference.protocol import ImageError, Notice
from models.images import ImageRejected

Pixels = npt.NDArray[np.uint8]
File = bytes | memoryview


@dataclass(frozen=True)
class Opened:
    """An image's pixels (H, W, C), as the network sees them, or why there are none."""

    pixels: Pixels | None
    warnings: tuple[Notice, ...]
    error: ImageError | None
    decode_ms: float


class Opener:
    """Decodes and prepares so many files at once as there are threads."""

    def __init__(self, read: Read, *, threads: int) -> None:
        self._read = read
        self.threads = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    async def open(self, data: File) -> Opened:
        """Never raises over what is in the file."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            pixels, notes = await loop.run_in_executor(self.threads, self._read, data)
        except ImageRejected as refused:
            error = ImageError(code=refused.code, message=refused.message, hint=refused.hint)
            return Opened(None, (), error, decode_ms=(loop.time() - started) * 1000)
        warnings = tuple(Notice(code=each.code, message=each.message) for each in notes)
        return Opened(pixels, warnings, None, decode_ms=(loop.time() - started) * 1000)
