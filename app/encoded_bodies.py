"""Request bodies with a Content-Encoding: inflated while they arrive, no further than a plain body may be large."""

import asyncio
import zlib
from collections.abc import Iterator

from starlette.requests import Request

from app import bodies
from app.problems import BadRequestError, ProblemError
from app.services.admission import Ticket

#: HTTP's names (RFC 9110, 8.4.1) and zlib's window bits for them: a frame of gzip's, and one of zlib's own.
CODINGS = {"gzip": 31, "deflate": 15}
_STEP = 256 * 1024  # bytes that are inflated in one turn of the event loop, in a millisecond or less


class Inflater:
    """A compressed body, piece by piece. All of it is one stream, as clients make it."""

    def __init__(self, coding: str) -> None:
        self._coding = coding
        self._stream = zlib.decompressobj(CODINGS[coding])

    def steps(self, piece: bytes) -> Iterator[bytes]:
        """What this piece adds, of which nothing is inflated before it is asked for. Raises BadRequestError."""
        part = b""
        while piece or len(part) == _STEP:  # a full step may have left more behind, though all of the piece is read
            try:
                part = self._stream.decompress(piece, _STEP)
            except zlib.error as error:
                raise self._refused(f"is none: {error}") from error
            if self._stream.unused_data:
                raise self._refused("goes on behind its end")
            piece = self._stream.unconsumed_tail
            if part:
                yield part

    def end(self) -> None:
        """All of the body was here. Raises BadRequestError where there should be more."""
        if not self._stream.eof:
            raise self._refused("ends in the middle")

    def _refused(self, what: str) -> BadRequestError:
        hint = "Compress the whole body once, or send it as it is."
        return BadRequestError("invalid_encoding", f"The body in Content-Encoding {self._coding} {what}.", hint=hint)


async def read(request: Request, limit: int, *, hint: str) -> bytes:
    """The whole body as it was before it was encoded, at most `limit` bytes; it counts as held while it grows.

    Raises as `bodies.stream`; ProblemError (415) for an encoding that is not read, BadRequestError for what is not in
    the one that is named.
    """
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding == "identity":
        return await bodies.read(request, limit, hint=hint)
    if coding not in CODINGS:
        raise ProblemError(
            "unsupported_media_type",
            f"A body in Content-Encoding {coding[:40]} is not read.",
            hint=f"Send it in {' or '.join(CODINGS)}, or as it is: images are compressed already.",
            headers={"Accept-Encoding": ", ".join(CODINGS)},
            status=415,
        )
    ticket: Ticket | None = request.scope.get("ticket")
    inflater, parts, size = Inflater(coding), list[bytes](), 0
    async for piece in bodies.stream(request, limit, hint=hint):
        for part in inflater.steps(piece):
            size += len(part)
            if size > limit:
                raise bodies.too_large(limit, hint=hint)
            if ticket is not None:
                ticket.hold(size)
            parts.append(part)
            await asyncio.sleep(0)
    inflater.end()
    return b"".join(parts)
