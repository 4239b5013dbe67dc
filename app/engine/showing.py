"""What the network saw of an image, and where in it it saw a class: each with its picture as a PNG file."""

import asyncio
import hashlib
import time

import numpy as np

from app.engine.explain import grad_cam, overlay, png
from app.engine.opening import Opened, Opener, Pixels
from app.engine.ranking import NOT_FINITE, label_of
from app.engine.reference import Reference
from app.inference.protocol import ImageExplanation, Notice, Preprocessed
from models.manifest import Manifest
from models.runtime import Runtime, probabilities


class Showing:
    """For one model version. Images that could not be opened keep their error."""

    def __init__(self, manifest: Manifest, opener: Opener, reference: Reference) -> None:
        self._manifest = manifest
        self._opener = opener
        self._reference = reference

    async def seen(self, index: int, opened: Opened) -> tuple[Preprocessed, bytes]:
        """The pixels of an image, from the very code that classification uses."""
        if opened.pixels is None:
            return Preprocessed(index=index, error=opened.error), b""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._opener.threads, _seen, index, opened.pixels, opened.warnings)

    async def explained(
        self, index: int, opened: Opened, *, class_index: int | None, with_overlay: bool
    ) -> tuple[ImageExplanation, bytes, float]:
        """Grad-CAM by the float32 network, and its ms. Raises ValueError where the output is not finite."""
        if opened.pixels is None:
            return ImageExplanation(index=index, error=opened.error), b"", 0.0
        pixels = opened.pixels

        def work(runtime: Runtime) -> tuple[ImageExplanation, bytes, float]:
            began = time.monotonic()
            found = grad_cam(runtime, pixels, class_index=class_index)
            if not (np.isfinite(found.logits).all() and np.isfinite(found.heat).all()):
                raise ValueError(NOT_FINITE)
            label = label_of(probabilities(found.logits, self._manifest), self._manifest.classes, found.class_index)
            heat = tuple(tuple(round(float(value), 4) for value in row) for row in found.heat)
            picture = overlay(pixels, found.heat) if with_overlay else b""
            result = ImageExplanation(
                index=index, label=label, heatmap=heat, png=len(picture), warnings=opened.warnings
            )
            return result, picture, (time.monotonic() - began) * 1000

        return await self._reference.run(work)


def _seen(index: int, pixels: Pixels, warnings: tuple[Notice, ...]) -> tuple[Preprocessed, bytes]:
    file = png(pixels)
    digest = hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()
    result = Preprocessed(index=index, shape=pixels.shape, sha256=digest, png=len(file), warnings=warnings)
    return result, file
