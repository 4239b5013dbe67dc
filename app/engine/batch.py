"""Which images the device computes next.

An idle device never waits: it takes what is there. While it works, images gather, and the next batch is what gathered,
up to `max_batch` images: so batches grow with the load. Images are counted, not requests.

A CPU computes in one of two ways. A lone image gets all cores (*wide*), because that answers it soonest. Where more are
in the house each core computes batches of its own (*narrow*), because that answers most: no core waits for another.
There an image is made of its file by the thread that computes it, too: nothing is handed from core to core, and there
are no more threads at work than cores.
"""

import asyncio
import logging
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from app.engine.streams import Streams
from models.runtime import Outputs

log = logging.getLogger(__name__)

MAX_BATCH = 32


class ComputeFailed(RuntimeError):
    """The device raised an error over the batch that this image was in."""


@dataclass(frozen=True)
class Computed:
    """One image's logits, float32 (K,), and embedding, float32 (D,).

    `began`: when the forward pass of its batch began, of time.monotonic, with all its images made; it took
    `compute_ms`.
    """

    logits: npt.NDArray[np.float32]
    embedding: npt.NDArray[np.float32]
    began: float
    compute_ms: float


Pixels = npt.NDArray[Any]
Maker = Callable[[], Pixels | None]
Compute = Callable[[Pixels], Outputs]
_Rows = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]
_Batch = tuple[list[_Rows | None], float, float]


@dataclass(frozen=True, eq=False)
class Waiting:
    """An image, uint8 (H, W, C), or what makes it, for which somebody waits: `since` of time.monotonic, until
    `deadline` of the event loop's time. One that went before all others is a ping's, and no client's.
    """

    image: Pixels | Maker
    since: float
    deadline: float
    answer: "asyncio.Future[Computed | None]"
    first: bool = False

    def pixels(self) -> Pixels | None:
        """None where the image cannot be made."""
        return self.image() if callable(self.image) else self.image


def take(queue: deque[Waiting], *, max_batch: int, now: float) -> list[Waiting]:
    """Remove the next batch from the queue: the oldest images, but none whose client is gone or whose time is over."""
    batch: list[Waiting] = []
    while queue and len(batch) < max_batch:
        image = queue.popleft()
        if not image.answer.done() and image.deadline > now:
            batch.append(image)
    return batch


@dataclass(frozen=True)
class Computing:
    """A loaded runtime, and the batches that it likes: of images (N, H, W, C) with N ≤ `max_batch`.

    `wide` takes all cores for one batch at a time; `narrow` takes one core and is called by `streams` threads at once.
    `max_delay`, in seconds: how long a batch that is not full may wait for more images while another is computed.
    `makes`: its threads are at work on the cores that decode, so images are best made there. `quick`: it computes a
    lone image so soon that the event loop may be held up by it, and needs no thread for that, which would cost 0.2 ms.
    """

    wide: Compute
    narrow: Compute | None = None
    streams: int = 1
    max_batch: int = MAX_BATCH
    max_delay: float = 0.0
    makes: bool = False
    quick: bool = False

    @property
    def at_once(self) -> int:
        """How many batches: of streams one more than compute, so that a core that ends one has the next in hand."""
        return self.streams + 1 if self.narrow else 1


@dataclass(frozen=True)
class Turn:
    """Batches to start now, by their sizes: one for all cores, or one a stream."""

    wide: bool
    sizes: tuple[int, ...]


def turn(computing: Computing, *, waiting: int, present: int, running: int, wide: bool, waited: float) -> Turn | None:
    """What to start now, None where something has to end or to arrive first.

    `waiting` images are in the queue, the oldest for `waited` seconds; `present` are in the house, those that are still
    being decoded included; `running` batches are computed, and `wide` says that it is one with all cores.
    """
    if not waiting or wide:
        return None
    free = (computing.streams if computing.narrow else 1) - running
    if free <= 0:
        spare = running < computing.at_once and waiting >= computing.max_batch  # a fuller one cannot come
        return Turn(wide=False, sizes=(computing.max_batch,)) if spare else None
    if running and waiting < computing.max_batch and waited < computing.max_delay:
        return None
    if not computing.narrow or (present <= 1 and not running):
        return Turn(wide=True, sizes=(min(waiting, computing.max_batch),))
    size = min(computing.max_batch, math.ceil(waiting / free))
    left = min(waiting, size * free)
    return Turn(wide=False, sizes=tuple(min(size, left - start) for start in range(0, left, size)))


class Batcher:
    """Feeds a runtime batch after batch, in threads of its own."""

    def __init__(self, computing: Computing) -> None:
        """`computing` may also be of a network that takes images in another form: what was submitted comes stacked."""
        self._computing = computing
        self._queue: deque[Waiting] = deque()
        self._looking = False  # soon, whether something can be started
        self._wide = ThreadPoolExecutor(1, thread_name_prefix="wide")
        self._narrow = Streams(computing.streams)
        self._running: set[asyncio.Future[_Batch]] = set()
        self.sizes: Counter[int] = Counter()  # clients' images → how many batches of so many were computed
        self._wide_runs = False
        self._present: Callable[[], int] = lambda: len(self._queue)

    def use(self, computing: Computing) -> None:
        """Compute with this from now on; what is being computed ends where it is."""
        self._computing = computing
        self._narrow.threads.shutdown(wait=False)
        self._narrow = Streams(computing.streams)
        if self._queue:
            self._look_soon()

    @property
    def makes(self) -> bool:
        """Whether images are best given as what makes them."""
        return self._computing.makes

    def watch(self, present: Callable[[], int]) -> None:
        """`present()` tells how many images are in the house, those that are still being decoded included."""
        self._present = present

    async def submit(self, pixels: Pixels, *, deadline: float, first: bool = False) -> Computed:
        """Compute one image; `first` puts it before all others, and it is not counted. Raises ComputeFailed.

        An image whose deadline passes while it waits is never computed and never answered: the caller keeps the time.
        """
        computed = await self._put(pixels, deadline=deadline, first=first)
        assert computed is not None  # noqa: S101 - only what is made may fail to be
        return computed

    async def make(self, image: Maker, *, deadline: float) -> Computed | None:
        """Compute what `image` makes, in a thread; None where it makes none. Otherwise like `submit`."""
        return await self._put(image, deadline=deadline, first=False)

    async def _put(self, image: Pixels | Maker, *, deadline: float, first: bool) -> Computed | None:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Computed | None] = loop.create_future()
        waiting = Waiting(image=image, since=time.monotonic(), deadline=deadline, answer=answer, first=first)
        if first:
            self._queue.appendleft(waiting)
        else:
            self._queue.append(waiting)
        self._look_soon()
        return await answer

    def _look_soon(self) -> None:
        """When all that has just arrived is in the queue: what came together is computed together."""
        if not self._looking:
            self._looking = True
            asyncio.get_running_loop().call_soon(self._look)

    def _look(self) -> None:
        self._looking = False
        try:
            self._start_what_is_due()
        except Exception as error:  # nobody waits for what nobody would ever look at again
            log.exception("no batch could be started", extra={"images": len(self._queue)})
            waiting, self._queue = self._queue, deque()
            _fail(waiting, error)

    def _start_what_is_due(self) -> None:
        loop, computing = asyncio.get_running_loop(), self._computing
        now = loop.time()
        if len(self._running) >= computing.at_once:
            return  # the queue may be long, and is looked through when a batch ends
        if any(image.answer.done() or image.deadline <= now for image in self._queue):
            self._queue = deque(take(self._queue, max_batch=len(self._queue), now=now))  # nobody counts who has left
        clock = time.monotonic()
        waited = clock - min((image.since for image in self._queue), default=clock)
        due = turn(
            computing,
            waiting=len(self._queue),
            present=self._present(),
            running=len(self._running),
            wide=self._wide_runs,
            waited=waited,
        )
        if due is None:
            if self._queue and waited < computing.max_delay:  # later on, only the end of a batch changes anything
                loop.call_later(computing.max_delay - waited, self._look_soon)
            return
        for size in due.sizes:
            batch = [self._queue.popleft() for _ in range(size)]
            outcome = self._started(batch, wide=due.wide)
            self._wide_runs = due.wide
            self._running.add(outcome)
            outcome.add_done_callback(partial(self._ended, batch))

    def _started(self, batch: Sequence[Waiting], *, wide: bool) -> "asyncio.Future[_Batch]":
        """What comes of the batch; also where no thread is to be had for it."""
        loop, computing = asyncio.get_running_loop(), self._computing
        narrow = None if wide else computing.narrow
        outcome: asyncio.Future[_Batch]
        try:
            if narrow is not None:
                crowded = len(self._running) + 1 >= computing.streams
                work = partial(_computed_by_stream, self._narrow, narrow, batch, crowded=crowded)
                return loop.run_in_executor(self._narrow.threads, work)
            if not (wide and computing.quick and len(batch) == 1):
                return loop.run_in_executor(self._wide, _computed, computing.wide, batch)
            computed = _computed(computing.wide, batch)
        except Exception as error:
            outcome = loop.create_future()
            outcome.set_exception(error)
        else:
            outcome = loop.create_future()
            outcome.set_result(computed)
        return outcome

    def _ended(self, batch: Sequence[Waiting], outcome: "asyncio.Future[_Batch]") -> None:
        self._running.discard(outcome)
        self._wide_runs = False
        self._look_soon()
        error = outcome.exception()
        if error is not None:
            log.error("the device failed", exc_info=error, extra={"images": len(batch)})
            _fail(batch, error)
            return
        outputs, began, seconds = outcome.result()
        both = tuple(zip(batch, outputs, strict=True))
        if made := sum(output is not None and not image.first for image, output in both):
            self.sizes[made] += 1
        for image, output in both:
            if image.answer.done():
                continue
            if output is None:
                image.answer.set_result(None)
                continue
            logits, embedding = output
            image.answer.set_result(Computed(logits, embedding, began=began, compute_ms=seconds * 1000))


def _fail(images: Iterable[Waiting], error: BaseException) -> None:
    for image in images:
        if not image.answer.done():
            image.answer.set_exception(ComputeFailed(f"the device failed: {type(error).__name__}"))


def _computed_by_stream(streams: Streams, compute: Compute, batch: Sequence[Waiting], *, crowded: bool) -> _Batch:
    streams.keep(crowded=crowded)
    return _computed(compute, batch)


def _computed(compute: Compute, batch: Sequence[Waiting]) -> _Batch:
    """In a thread: each image's logits (K,) and embedding (D,), None for one that cannot be made; when computing them
    began, of time.monotonic; and the seconds that it took.
    """
    made = [None if image.answer.done() else image.pixels() for image in batch]  # who has left meanwhile needs nothing
    pixels = [each for each in made if each is not None]
    if not pixels:
        return [None] * len(batch), time.monotonic(), 0.0
    began = time.monotonic()
    outputs = compute(np.stack(pixels))
    rows = zip(outputs.logits, outputs.embedding, strict=True)
    return [None if each is None else next(rows) for each in made], began, time.monotonic() - began
