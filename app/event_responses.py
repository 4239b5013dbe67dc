"""One history, three renderings: server-sent events, newline-delimited JSON, a page of JSON."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, suppress
from typing import Literal

import orjson

from app.accept import prefer
from app.problems import UnavailableError
from app.services.feeds import Closing
from jobs.model import Event, State
from jobs.records import ends

Rendering = Literal["sse", "ndjson", "page"]
RETRY_MS = 2000
_HEAD = f"retry: {RETRY_MS}\n\n".encode()
_STREAM: dict[str, Rendering] = {"text/event-stream": "sse"}
_MEDIA_TYPES: dict[str, Rendering] = {**_STREAM, "application/json": "page", "application/x-ndjson": "ndjson"}
#: U+0085, U+2028 and U+2029: no line ends for JSON and event streams, but for Python's str.splitlines and others.
_LINE_ENDS = tuple((chr(code).encode(), b"\\u%04x" % code) for code in (0x85, 0x2028, 0x2029))
PAGE_HEADERS = {"Vary": "Accept, Last-Event-ID"}
STREAM_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no", **PAGE_HEADERS}


def choose(accept: str, *, resuming: bool) -> Rendering | None:
    """What an Accept header asks for, server-sent events where it leaves that open; None: nothing of ours.

    `resuming`: the request has a Last-Event-ID. Readers of server-sent events send it, so it gets them wherever Accept
    takes them at all, whatever it would rather have.
    """
    if resuming and (stream := prefer(accept, _STREAM)) is not None:
        return stream
    return prefer(accept, _MEDIA_TYPES)


def as_json(event: Event) -> bytes:
    """One line, for every reader."""
    return _one_line(event.model_dump_json().encode())


def _one_line(json: bytes) -> bytes:
    """JSON with the characters escaped that many readers take for the end of a line: they are inside strings only."""
    for character, escaped in _LINE_ENDS:
        json = json.replace(character, escaped)
    return json


async def sse(
    events: AsyncGenerator[Event | None, None], *, state: Callable[[], Awaitable[State]] | None
) -> AsyncIterator[bytes]:
    """`id`, `event`, `data` for each event, a comment in silence, and `event: end` with the job's state after its last.

    `state` is asked where the client knew the last event already; None where the stream need not reach the job's end.
    Where it ends without `end`, the client comes back with its last id and goes on from there.
    """
    yield _HEAD
    last: str | None = None
    try:
        async with aclosing(events) as source:
            async for event in source:
                if event is None:
                    yield b": keep-alive\n\n"
                    continue
                last = event.type
                yield b"id: %b\nevent: %b\ndata: %b\n\n" % (
                    event.id.encode(),
                    event.type.encode(),
                    _one_line(orjson.dumps(event.data)),
                )
        final = await state() if last is None and state is not None else last
    except (Closing, UnavailableError):
        return
    if final is not None and ends(final):
        yield b"event: end\ndata: %b\n\n" % orjson.dumps({"state": final})


async def ndjson(events: AsyncGenerator[Event | None, None]) -> AsyncIterator[bytes]:
    """One event a line; an empty line in silence, so that a dead connection is noticed."""
    with suppress(Closing):
        async with aclosing(events) as source:
            async for event in source:
                yield b"\n" if event is None else as_json(event) + b"\n"
