"""A request's way through the engine: admission, decoding on threads, batches on the device, labels."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from app.engine.admission import Admission, Limits
from app.engine.batch import Batcher, Computed
from app.engine.decode import Read
from app.engine.opening import File, Opened, Opener, Unopened
from app.engine.ranking import NOT_FINITE, top_k
from app.engine.reference import Reference
from app.engine.showing import Showing
from app.engine.tensors import Refused, pack, read_tensor
from app.inference.protocol import (
    Answer,
    Explained,
    ImageError,
    ImageResult,
    Inferred,
    Output,
    Prepared,
    TensorHead,
    TensorInput,
    Timings,
)
from models.manifest import Manifest
from models.runtime import Runtime, probabilities

log = logging.getLogger(__name__)

_NORMALISED_BATCH = 8  # float32 gains little by more, and who waits behind a batch waits for all of it
_TOGETHER = 512 * 1024  # bytes; a longer file is opened apart, so that nobody in its batch waits for that
_Packed = tuple[tuple[TensorHead, ...], tuple[bytes, ...]]


@dataclass(frozen=True)
class _Outcome:
    result: ImageResult
    decode_ms: float
    computed: Computed | None = None


class Pipeline:
    """Answers for one model version. All that take `timeout` (seconds) raise Overloaded at once, and TimeoutError."""

    def __init__(
        self,
        manifest: Manifest,
        batcher: Batcher,
        *,
        read: Read,
        limits: Limits,
        decode_threads: int,
        reference: Callable[[], Runtime],
    ) -> None:
        """`read` makes pixels of files, on `decode_threads` threads at once.

        `reference` loads the float32 network, when gradients or normalised inputs are first asked for.
        """
        self._manifest = manifest
        self._classes = manifest.classes
        self._preprocessing = manifest.preprocessing
        self._batcher = batcher
        self._opener = Opener(read, threads=decode_threads)
        self._admission = Admission(limits)
        self._reference = Reference(reference)
        self._showing = Showing(manifest, self._opener, self._reference)
        self._normalised: tuple[Batcher, asyncio.Task[None]] | None = None

    @property
    def images(self) -> int:
        """Images in the house now."""
        return self._admission.images

    @property
    def batches(self) -> Mapping[int, int]:
        """How many batches of each size were computed."""
        return self._batcher.sizes

    @property
    def idle_seconds(self) -> float:
        """Seconds since a client's request was here."""
        return self._admission.idle_seconds

    async def classify(
        self,
        images: Sequence[File],
        *,
        k: int,
        outputs: Sequence[Output] = (),
        timeout: float,  # noqa: ASYNC109 - the deadline of its images too
    ) -> Answer:
        """The `k` likeliest classes of each image, and `outputs`; one that cannot be decoded has an error of its own.

        Raises ComputeFailed where the device failed. So do the others; they raise ValueError, too, where the network's
        output is not finite.
        """
        arrived = time.monotonic()
        async with self._admission.admit(images=len(images), size=sum(map(len, images)), timeout=timeout) as deadline:
            one = (self._one(i, image, k=k, deadline=deadline) for i, image in enumerate(images))
            outcomes = await asyncio.gather(*one)
        good = [each.computed for each in outcomes if each.computed is not None and each.result.error is None]
        tensors, payload = self._pack(outputs, good)
        return Answer(
            results=tuple(each.result for each in outcomes),
            tensors=tensors,
            payload=payload,
            timings_ms=_timings(
                [each.decode_ms for each in outcomes],
                [each.computed for each in outcomes if each.computed is not None],
                total=time.monotonic() - arrived,
            ),
        )

    async def infer(
        self,
        data: File,
        *,
        kind: TensorInput,
        shape: Sequence[int],
        outputs: Sequence[Output],
        timeout: float,  # noqa: ASYNC109 - as above
    ) -> Inferred:
        """The outputs for images that a client has prepared. Raises Refused.

        Pixels are computed as everything else is, in the same batches; what is normalised already by the float32
        network, with others of its kind.
        """
        rows = read_tensor(data, kind, shape, self._preprocessing)
        arrived = time.monotonic()
        served = kind is TensorInput.PIXELS
        async with self._admission.admit(images=len(rows), size=len(data), timeout=timeout, batched=served) as deadline:
            batcher = self._batcher if served else self._batcher_of_normalised()
            computed = await asyncio.gather(*(batcher.submit(row, deadline=deadline) for row in rows))
        if not all(np.isfinite(each.logits).all() for each in computed):
            raise ValueError(NOT_FINITE)
        tensors, payload = self._pack(outputs, computed)
        timings = _timings([], computed, total=time.monotonic() - arrived)
        return Inferred(tensors=tensors, payload=payload, timings_ms=timings)

    async def explain(
        self,
        images: Sequence[File],
        *,
        class_index: int | None,
        with_overlay: bool,
        timeout: float,  # noqa: ASYNC109 - as above
    ) -> Explained:
        """Grad-CAM of each image, by the float32 network, one after the other. Raises Refused."""
        if class_index is not None and not 0 <= class_index < len(self._classes):
            raise Refused(f"class_index {class_index} is none of this model's: it has 0 to {len(self._classes) - 1}")
        arrived = time.monotonic()
        size = sum(map(len, images))
        async with self._admission.admit(images=len(images), size=size, timeout=timeout, batched=False):
            opened = await asyncio.gather(*map(self._opener.open, images))
            decoded = time.monotonic()
            both = [
                await self._showing.explained(index, each, class_index=class_index, with_overlay=with_overlay)
                for index, each in enumerate(opened)
            ]
        compute = (time.monotonic() - decoded) * 1000
        timings = _timings([each.decode_ms for each in opened], [], total=time.monotonic() - arrived, compute=compute)
        results, files = tuple(result for result, _ in both), tuple(file for _, file in both)
        return Explained(results=results, payload=files, timings_ms=timings)

    async def preprocess(
        self,
        images: Sequence[File],
        *,
        timeout: float,  # noqa: ASYNC109 - as above
    ) -> Prepared:
        """What the network sees of each image."""
        arrived = time.monotonic()
        size = sum(map(len, images))
        async with self._admission.admit(images=len(images), size=size, timeout=timeout, batched=False):
            opened = await asyncio.gather(*map(self._opener.open, images))
            both = await asyncio.gather(*(self._showing.seen(index, each) for index, each in enumerate(opened)))
        timings = _timings([each.decode_ms for each in opened], [], total=time.monotonic() - arrived)
        results, files = tuple(result for result, _ in both), tuple(file for _, file in both)
        return Prepared(results=results, payload=files, timings_ms=timings)

    async def ping(self, *, timeout: float) -> None:  # noqa: ASYNC109 - a real inference, so the same meaning as above
        """Compute one grey image, before all that wait. Raises TimeoutError and ComputeFailed."""
        to = self._preprocessing
        pixels = np.full((to.height, to.width, to.channels), 128, dtype=np.uint8)
        async with asyncio.timeout(timeout):
            deadline = asyncio.get_running_loop().time() + timeout
            computed = await self._batcher.submit(pixels, deadline=deadline, first=True)
        top_k(self._probabilities(computed.logits), self._classes, k=1)

    async def _one(self, index: int, data: File, *, k: int, deadline: float) -> _Outcome:
        opened, computed = await self._computed(data, deadline=deadline)
        if computed is None:
            return _Outcome(ImageResult(index=index, error=opened.error), opened.decode_ms)
        try:
            labels = top_k(self._probabilities(computed.logits), self._classes, k=k)
        except ValueError as not_finite:
            log.exception("an output is not finite", extra={"classes": len(self._classes)})
            error = ImageError(code="internal", message=str(not_finite), hint="try another version of this model")
            result = ImageResult(index=index, warnings=opened.warnings, error=error)
        else:
            result = ImageResult(index=index, top_k=labels, warnings=opened.warnings)
        return _Outcome(result, opened.decode_ms, computed)

    async def _computed(self, data: File, *, deadline: float) -> tuple[Opened, Computed | None]:
        """None where the file cannot be opened, which says why."""
        if self._batcher.makes and len(data) <= _TOGETHER:
            file = Unopened(self._opener, data)
            computed = await self._batcher.make(file, deadline=deadline)
            assert file.opened is not None  # noqa: S101 - it was asked for its pixels
            return file.opened, computed
        opened = await self._opener.open(data)
        if opened.pixels is None:
            return opened, None
        return opened, await self._batcher.submit(opened.pixels, deadline=deadline)

    def _batcher_of_normalised(self) -> Batcher:
        """Made, with its own thread, when it is first needed."""
        if self._normalised is None:
            compute = self._reference.outputs_of_normalised
            batcher = Batcher(compute, max_batch=_NORMALISED_BATCH)
            self._normalised = batcher, asyncio.create_task(batcher.run(), name="normalised inputs")
        return self._normalised[0]

    def _probabilities(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Raises ValueError where a logit is not finite."""
        if not np.isfinite(logits).all():
            raise ValueError(NOT_FINITE)
        return probabilities(logits, self._manifest)

    def _pack(self, outputs: Sequence[Output], computed: Sequence[Computed]) -> _Packed:
        """Each output once, whatever was asked twice, in the order of the asking."""
        take: dict[Output, Callable[[Computed], npt.NDArray[np.floating]]] = {
            Output.PROBABILITIES: lambda each: self._probabilities(each.logits),
            Output.LOGITS: lambda each: each.logits,
            Output.EMBEDDING: lambda each: each.embedding,
        }
        return pack({name: [take[name](each) for each in computed] for name in outputs})


def _timings(
    decode: Sequence[float], computed: Sequence[Computed], *, total: float, compute: float | None = None
) -> Timings:
    """`decode` and `compute` in ms, `total` in seconds; `compute` where no batch of `computed` tells it."""
    slowest = max((each.compute_ms for each in computed), default=0.0)
    return Timings(
        decode=round(max(decode, default=0.0), 3),
        queue=round(max((each.queue_ms for each in computed), default=0.0), 3),
        compute=round(slowest if compute is None else compute, 3),
        total=round(total * 1000, 3),
    )
