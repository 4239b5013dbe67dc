"""A request's way through the engine: admission, decoding on threads, batches on the device, labels."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from app.engine.admission import Places
from app.engine.batch import Batcher, Computed, Computing
from app.engine.cost import cheap
from app.engine.decode import Read
from app.engine.opening import File, Opened, Opener, Unopened
from app.engine.ranking import NOT_FINITE, top_k
from app.engine.reference import Reference
from app.engine.showing import Showing
from app.engine.tensors import Refused, pack, read_tensor
from app.engine.together import together
from app.inference.limits import Limits
from app.inference.protocol import (
    ClassifyAnswer,
    ExplainAnswer,
    ImageError,
    ImageResult,
    InferAnswer,
    Output,
    PreprocessAnswer,
    TensorHead,
    TensorInput,
    Timings,
)
from app.inference.sizes import FEW_LABELS
from models.manifest import Manifest
from models.runtime import Runtime, probabilities

log = logging.getLogger(__name__)

_NORMALISED_BATCH = 8  # float32 gains little by more, and who waits behind a batch waits for all of it
_TOGETHER = 512 * 1024  # bytes; a longer file, or one not `cheap`, is opened apart: nobody in its batch waits for that
_Packed = tuple[tuple[TensorHead, ...], tuple[bytes, ...]]


class _Stages(NamedTuple):
    """Where the time of one image went, in ms: its own decoding, its own forward pass, and waiting for all else."""

    decode: float = 0.0
    queue: float = 0.0
    compute: float = 0.0


@dataclass(frozen=True)
class _Outcome:
    result: ImageResult
    stages: _Stages
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
        to = manifest.preprocessing
        self._opener = Opener(read, shape=(to.height, to.width, to.channels), threads=decode_threads)
        self._places = Places(limits)
        self._reference = Reference(reference)
        self._showing = Showing(manifest, self._opener, self._reference)
        self._normalised: Batcher | None = None

    @property
    def images(self) -> int:
        """Images in the house now."""
        return self._places.images

    @property
    def batches(self) -> Mapping[int, int]:
        """How many batches of each size were computed for clients."""
        return self._batcher.sizes if self._normalised is None else self._batcher.sizes + self._normalised.sizes

    @property
    def idle_seconds(self) -> float:
        """Seconds since a client's request was here."""
        return self._places.idle_seconds

    async def classify(
        self,
        images: Sequence[File],
        *,
        k: int,
        outputs: Sequence[Output] = (),
        timeout: float,  # noqa: ASYNC109 - the deadline of its images too
    ) -> ClassifyAnswer:
        """The `k` likeliest classes of each image, and `outputs`; one that cannot be decoded has an error of its own.

        Raises ComputeFailed where the device failed. So do the others; they raise ValueError, too, where the network's
        output is not finite.
        """
        arrived = time.monotonic()
        size = sum(map(len, images))
        async with self._places.served.admit(images=len(images), size=size, timeout=timeout) as deadline:
            many = len(images) * min(k, len(self._classes)) > FEW_LABELS
            each = [
                self._one(i, image, k=k, many=many, arrived=arrived, deadline=deadline)
                for i, image in enumerate(images)
            ]
            outcomes = await together(each)
        good = [each.computed for each in outcomes if each.computed is not None and each.result.error is None]
        tensors, payload = self._pack(outputs, good)
        return ClassifyAnswer(
            results=tuple(each.result for each in outcomes),
            tensors=tensors,
            payload=payload,
            timings_ms=_timings((each.stages for each in outcomes), arrived=arrived),
        )

    async def infer(
        self,
        data: File,
        *,
        kind: TensorInput,
        shape: Sequence[int],
        outputs: Sequence[Output],
        timeout: float,  # noqa: ASYNC109 - as above
    ) -> InferAnswer:
        """The outputs for images that a client has prepared. Raises Refused.

        Pixels are computed as everything else is, in the same batches; what is normalised already by the float32
        network, with others of its kind.
        """
        rows = read_tensor(data, kind, shape, self._preprocessing)
        arrived = time.monotonic()
        served = kind is TensorInput.PIXELS
        place = self._places.served if served else self._places.normalised
        async with place.admit(images=len(rows), size=len(data), timeout=timeout) as deadline:
            batcher = self._batcher if served else self._batcher_of_normalised()
            computed = await together([batcher.submit(row, deadline=deadline) for row in rows])
        if not all(np.isfinite(each.logits).all() for each in computed):
            raise ValueError(NOT_FINITE)
        tensors, payload = self._pack(outputs, computed)
        timings = _timings((_stages(0.0, each, arrived=arrived) for each in computed), arrived=arrived)
        return InferAnswer(tensors=tensors, payload=payload, timings_ms=timings)

    async def explain(
        self,
        images: Sequence[File],
        *,
        class_index: int | None,
        with_overlay: bool,
        timeout: float,  # noqa: ASYNC109 - as above
    ) -> ExplainAnswer:
        """Grad-CAM of each image, by the float32 network, one after the other. Raises Refused."""
        if class_index is not None and not 0 <= class_index < len(self._classes):
            raise Refused(f"class_index {class_index} is none of this model's: it has 0 to {len(self._classes) - 1}")
        arrived = time.monotonic()
        size = sum(map(len, images))
        async with self._places.explained.admit(images=len(images), size=size, timeout=timeout):
            opened = await together([self._opener.open(image) for image in images])
            shown = [
                await self._showing.explained(index, each, class_index=class_index, with_overlay=with_overlay)
                for index, each in enumerate(opened)
            ]
        decode, compute = max((each.decode_ms for each in opened), default=0.0), sum(ms for _, _, ms in shown)
        queue = (time.monotonic() - arrived) * 1000 - decode - compute
        timings = _timings([_Stages(decode, queue, compute)], arrived=arrived)
        results, files = tuple(result for result, _, _ in shown), tuple(file for _, file, _ in shown)
        return ExplainAnswer(results=results, payload=files, timings_ms=timings)

    async def preprocess(
        self,
        images: Sequence[File],
        *,
        timeout: float,  # noqa: ASYNC109 - as above
    ) -> PreprocessAnswer:
        """What the network sees of each image."""
        arrived = time.monotonic()
        size = sum(map(len, images))
        async with self._places.prepared.admit(images=len(images), size=size, timeout=timeout):
            opened = await together([self._opener.open(image) for image in images])
            decode = max((each.decode_ms for each in opened), default=0.0)
            queue = (time.monotonic() - arrived) * 1000 - decode
            both = await together([self._showing.seen(index, each) for index, each in enumerate(opened)])
        timings = _timings([_Stages(decode, queue)], arrived=arrived)
        results, files = tuple(result for result, _ in both), tuple(file for _, file in both)
        return PreprocessAnswer(results=results, payload=files, timings_ms=timings)

    async def ping(self, *, timeout: float) -> None:  # noqa: ASYNC109 - a real inference, so the same meaning as above
        """Compute one grey image, before all that wait. Raises TimeoutError and ComputeFailed."""
        to = self._preprocessing
        pixels = np.full((to.height, to.width, to.channels), 128, dtype=np.uint8)
        async with asyncio.timeout(timeout):
            deadline = asyncio.get_running_loop().time() + timeout
            computed = await self._batcher.submit(pixels, deadline=deadline, first=True)
        top_k(self._probabilities(computed.logits), self._classes, k=1)

    async def _one(self, index: int, data: File, *, k: int, many: bool, arrived: float, deadline: float) -> _Outcome:
        opened, computed = await self._computed(data, deadline=deadline)
        stages = _stages(opened.decode_ms, computed, arrived=arrived)
        if computed is None:
            return _Outcome(ImageResult(index=index, error=opened.error), stages)
        try:
            ranked = partial(top_k, self._probabilities(computed.logits), self._classes, k=k)
            labels = await asyncio.to_thread(ranked) if many else ranked()  # 5 µs each: a second where they are 256,000
        except ValueError as not_finite:
            log.exception("an output is not finite", extra={"classes": len(self._classes)})
            error = ImageError(code="internal", message=str(not_finite), hint="try another version of this model")
            result = ImageResult(index=index, warnings=opened.warnings, error=error)
        else:
            result = ImageResult(index=index, top_k=labels, warnings=opened.warnings)
        return _Outcome(result, stages, computed)

    async def _computed(self, data: File, *, deadline: float) -> tuple[Opened, Computed | None]:
        """None where the file cannot be opened, which says why."""
        if self._batcher.makes and len(data) <= _TOGETHER and cheap(data):
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
            computing = Computing(wide=self._reference.outputs_of_normalised, max_batch=_NORMALISED_BATCH)
            self._normalised = Batcher(computing)
        return self._normalised

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


def _stages(decode_ms: float, computed: Computed | None, *, arrived: float) -> _Stages:
    """Of an image that came at `arrived` of time.monotonic and, where it is in no forward pass, was given up just now.

    What is neither its decoding nor its pass was waiting: for a thread, for its batch, for the files of others in it.
    """
    began, compute_ms = (time.monotonic(), 0.0) if computed is None else (computed.began, computed.compute_ms)
    return _Stages(decode_ms, max(0.0, (began - arrived) * 1000 - decode_ms), compute_ms)


def _timings(stages: Iterable[_Stages], *, arrived: float) -> Timings:
    """Those of the image that was ready last: together nearly the whole time since `arrived`."""
    last = max(stages, key=sum, default=_Stages())
    return Timings(
        decode=round(last.decode, 3),
        queue=round(last.queue, 3),
        compute=round(last.compute, 3),
        total=round((time.monotonic() - arrived) * 1000, 3),
    )
