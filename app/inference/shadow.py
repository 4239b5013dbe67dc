"""Copies of requests for a version that is on trial: sent when the client has its answer, and compared with that.

Nothing here can delay or fail a request: a copy is made of what is at hand, sent by a task of its own, and dropped
where too many are under way.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.inference.errors import InferenceError
from app.inference.routes import Choice

_MOST_COPIES = 8  # under way from this process; more would be a queue that only grows while the shadow is too slow
_MOST_BYTES = 64 * 2**20  # of their images

Send = Callable[[str, int, dict[str, Any], Sequence[bytes]], Awaitable[dict[str, Any]]]


@dataclass(frozen=True)
class Shadowed:
    """What came of one copy, in images by outcome.

    `agreed` and `disagreed` compare the likeliest label; `failed` has none from one of the two; `dropped` was not sent.
    """

    model: str
    version: int
    shadow: int
    images: Mapping[str, int]


class Shadows:
    """The copies under way. `watch` is told what came of each."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._bytes = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self.watch: Callable[[Shadowed], None] | None = None

    def copy(self, choice: Choice, fields: dict[str, Any], payload: Sequence[bytes], answer: Mapping[str, Any]) -> None:
        """Send a `classify` request that was answered by this header to the shadow, where the choice has one."""
        if choice.shadow is None:
            return
        results, size = answer["results"], sum(map(len, payload))
        if len(self._tasks) >= _MOST_COPIES or self._bytes + size > _MOST_BYTES:
            self._tell(choice, choice.shadow, {"dropped": len(results)})
            return
        self._bytes += size
        task = asyncio.create_task(self._compare(choice, choice.shadow, fields, payload, results), name="shadow")
        self._tasks.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            self._bytes -= size

        task.add_done_callback(ended)

    async def idle(self) -> None:
        """Wait until no copy is under way."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await self.idle()

    async def _compare(
        self, choice: Choice, shadow: int, fields: dict[str, Any], payload: Sequence[bytes], results: list[Any]
    ) -> None:
        try:
            header = await self._send(choice.model, shadow, {**fields, "top_k": 1, "outputs": ()}, payload)
        except (InferenceError, OSError, TimeoutError, ValueError):
            self._tell(choice, shadow, {"failed": len(results)})
        else:
            self._tell(choice, shadow, agreement(results, header["results"]))

    def _tell(self, choice: Choice, shadow: int, images: Mapping[str, int]) -> None:
        if self.watch is not None:
            self.watch(Shadowed(choice.model, choice.version, shadow, images))


def agreement(first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]]) -> Counter[str]:
    """Images by outcome, of two versions' results for the same images. An image that both refuse counts for nothing."""
    outcomes: Counter[str] = Counter()
    for ours, theirs in zip(first, second, strict=True):
        mine, other = _top1(ours), _top1(theirs)
        if mine is None and other is None:
            continue
        outcomes["failed" if None in (mine, other) else "agreed" if mine == other else "disagreed"] += 1
    return outcomes


def _top1(result: Mapping[str, Any]) -> str | None:
    return str(result["top_k"][0]["label"]) if result["top_k"] else None
