"""One history, three renderings: server-sent events, newline-delimited JSON, a page of JSON."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Literal

import orjson

from jobs.ledger import ends
from jobs.model import Event

Rendering = Literal["sse", "ndjson", "page"]
RETRY_MS = 2000
_HEAD = f"retry: {RETRY_MS}\n\n".encode()
_MEDIA_TYPES: dict[str, Rendering] = {
    "text/event-stream": "sse",
    "application/x-ndjson": "ndjson",
    "application/json": "page",
    "application/*": "page",
    "*/*": "page",
}
STREAM_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


def choose(accept: str) -> Rendering | None:
    """What an Accept header asks for (RFC 9110, 12.5.1: the greatest q, the first of equals); None: nothing of ours."""
    best: tuple[float, Rendering] | None = None
    for item in (accept or "*/*").split(","):
        kind, *parameters = (part.strip().lower() for part in item.split(";"))
        quality = next((_quality(each[2:]) for each in parameters if each.startswith("q=")), 1.0)
        rendering = _MEDIA_TYPES.get(kind)
        if rendering is not None and quality > 0 and (best is None or quality > best[0]):
            best = (quality, rendering)
    return best[1] if best else None


def _quality(text: str) -> float:
    try:
        return min(max(float(text), 0.0), 1.0)
    except ValueError:
        return 0.0


def as_json(event: Event) -> bytes:
    return event.model_dump_json().encode()


async def sse(events: AsyncGenerator[Event | None, None]) -> AsyncIterator[bytes]:
    """`id`, `event`, `data` for each event, a comment in silence, and `event: end` after the job's last event.

    Where the stream ends without `end`, the client comes back with its last id and goes on from there.
    """
    yield _HEAD
    ended = True  # a stream that has nothing to say is one of a job that has ended before
    async with aclosing(events) as source:
        async for event in source:
            if event is None:
                ended = False
                yield b": keep-alive\n\n"
                continue
            ended = ends(event.type)
            yield b"id: %b\nevent: %b\ndata: %b\n\n" % (
                event.id.encode(),
                event.type.encode(),
                orjson.dumps(event.data),
            )
    if ended:
        yield b"event: end\ndata: {}\n\n"


async def ndjson(events: AsyncGenerator[Event | None, None]) -> AsyncIterator[bytes]:
    """One event a line; an empty line in silence, so that a dead connection is noticed."""
    async with aclosing(events) as source:
        async for event in source:
            yield b"\n" if event is None else as_json(event) + b"\n"
