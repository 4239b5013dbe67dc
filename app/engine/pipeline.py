"""A request's way through the engine: admission, decoding on threads, batches on the device, labels."""

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from app.engine.batch import Batcher, Computed
from app.engine.ranking import top_k
from app.inference.protocol import Answer, ImageError, ImageResult, Notice, Timings
from models.images import ImageRejected, decode, prepare
from models.manifest import Manifest

log = logging.getLogger(__name__)


class Overloaded(Exception):
    """The engine holds as many images, or bytes, as it may."""


@dataclass(frozen=True)
class Limits:
    """What an engine holds at once. One request alone is always let in, however large."""

    images: int
    bytes: int
    pixels_per_image: int


@dataclass(frozen=True)
class _Outcome:
    result: ImageResult
    decode_ms: float
    computed: Computed | None = None


class Pipeline:
    """Classifies encoded images with one model version."""

    def __init__(self, manifest: Manifest, batcher: Batcher, *, limits: Limits, decode_threads: int) -> None:
        self._classes = manifest.classes
        self._preprocessing = manifest.preprocessing
        self._batcher = batcher
        self._limits = limits
        self._decoders = ThreadPoolExecutor(decode_threads, thread_name_prefix="decode")
        self._images = 0
        self._bytes = 0
        self._last_used = asyncio.get_running_loop().time()

    @property
    def images(self) -> int:
        """Images in the house now."""
        return self._images

    @property
    def idle_seconds(self) -> float:
        """Seconds since a client's request was here."""
        return 0.0 if self._images else asyncio.get_running_loop().time() - self._last_used

    async def classify(self, images: Sequence[bytes | memoryview], *, k: int, timeout: float) -> Answer:  # noqa: ASYNC109
        """The `k` likeliest classes of each image; one that cannot be decoded has an error of its own.

        `timeout` in seconds. Raises Overloaded at once, TimeoutError, and ComputeFailed where the device did.
        """
        size = sum(map(len, images))
        full = self._images + len(images) > self._limits.images or self._bytes + size > self._limits.bytes
        if self._images and full:
            raise Overloaded(f"{self._images} images wait already; at most {self._limits.images} may")
        loop = asyncio.get_running_loop()
        arrived = loop.time()
        self._images += len(images)
        self._bytes += size
        try:
            async with asyncio.timeout_at(arrived + timeout):
                one = (self._one(i, image, k=k, deadline=arrived + timeout) for i, image in enumerate(images))
                outcomes = await asyncio.gather(*one)
        finally:
            self._images -= len(images)
            self._bytes -= size
            self._last_used = loop.time()
        return Answer(
            results=tuple(each.result for each in outcomes),
            timings_ms=_timings(outcomes, total_ms=(loop.time() - arrived) * 1000),
        )

    async def ping(self, *, timeout: float) -> None:  # noqa: ASYNC109 - a real inference, so the same meaning as above
        """Compute one grey image, before all that wait. Raises TimeoutError and ComputeFailed."""
        to = self._preprocessing
        pixels = np.full((to.height, to.width, to.channels), 128, dtype=np.uint8)
        async with asyncio.timeout(timeout):
            deadline = asyncio.get_running_loop().time() + timeout
            computed = await self._batcher.submit(pixels, deadline=deadline, first=True)
        top_k(computed.probabilities, self._classes, k=1)

    async def _one(self, index: int, data: bytes | memoryview, *, k: int, deadline: float) -> _Outcome:
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            pixels, notices = await loop.run_in_executor(self._decoders, self._prepare, data)
        except ImageRejected as refused:
            error = ImageError(code=refused.code, message=refused.message, hint=refused.hint)
            return _Outcome(ImageResult(index=index, error=error), decode_ms=(loop.time() - started) * 1000)
        decode_ms = (loop.time() - started) * 1000
        computed = await self._batcher.submit(pixels, deadline=deadline)
        try:
            labels = top_k(computed.probabilities, self._classes, k=k)
        except ValueError as not_finite:
            log.exception("an output is not finite", extra={"classes": len(self._classes)})
            error = ImageError(code="internal", message=str(not_finite), hint="try another version of this model")
            return _Outcome(ImageResult(index=index, warnings=notices, error=error), decode_ms, computed)
        return _Outcome(ImageResult(index=index, top_k=labels, warnings=notices), decode_ms, computed)

    def _prepare(self, data: bytes | memoryview) -> tuple[npt.NDArray[np.uint8], tuple[Notice, ...]]:
        decoded = decode(bytes(data), max_pixels=self._limits.pixels_per_image)
        pixels, more = prepare(decoded, self._preprocessing)
        return pixels, tuple(Notice(code=each.code, message=each.message) for each in (*decoded.warnings, *more))


def _timings(outcomes: Sequence[_Outcome], *, total_ms: float) -> Timings:
    computed = [each.computed for each in outcomes if each.computed is not None]
    return Timings(
        decode=round(max((each.decode_ms for each in outcomes), default=0.0), 3),
        queue=round(max((each.queue_ms for each in computed), default=0.0), 3),
        compute=round(max((each.compute_ms for each in computed), default=0.0), 3),
        total=round(total_ms, 3),
    )
