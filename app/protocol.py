"""uvicorn's HTTP protocol with the bounds that it lacks: on the time and on the bytes of a request's head, on how long
a client may read nothing of its answer, and may send a body that was answered already; with a polite end, and with
problems for what cannot be read.

The bounds on the time of a body that is read are in `app/bodies.py`.
"""

import asyncio
import logging

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.drain import Drain
from app.middleware import request_id_for
from app.problems import BadRequestError, ProblemError, document
from app.responses import document_v2, speaks_v2

DRAIN = "drain"  # where the application's lifespan puts its Drain

HEAD_SECONDS = 10.0  # from a connection's first byte, or its opening, to the end of a request's head
HEAD_BYTES = 64 * 1024
LINGER_SECONDS = 10.0  # what a refused request's client is still sending is thrown away
STALLED_SECONDS = 30.0  # an answer waits for its client, who has not taken a byte for so long
_UNREADABLE_HINT = (
    "Look at the request's first line, its headers, Content-Length, and the chunks of its body; "
    "TLS is spoken by a proxy in front of this server, not by itself."
)
_TOO_LARGE_HINT = "Send a shorter address and fewer or shorter headers; what is long goes into the body."

_access = logging.getLogger("resnetd.access")


class HttpProtocol(HttpToolsProtocol):
    """Closes connections that send their head too slowly (slowloris) or endlessly, and those that stop reading.

    While a client does not read, uvicorn holds 64 KiB for it and its answer's source, an event stream say, waits. Cut
    off, the client comes back with its last id.
    """

    _head_timer: asyncio.TimerHandle | None = None
    _head_bytes = 0
    _in_head = True
    _stall_timer: asyncio.TimerHandle | None = None
    _linger_timer: asyncio.TimerHandle | None = None
    _refused = False  # nothing is read on this connection any more, only thrown away

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._stop_stall_timer()
        self._stop_linger_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        if self._in_head and self._head_timer is None:
            self._start_timer()
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        # The count includes what came of a body with the head's last piece, hence the look at `_in_head` again.
        over = self._in_head and self._head_bytes > HEAD_BYTES
        if over and not self._refused and not self.transport.is_closing():
            detail = f"The request's head is larger than {HEAD_BYTES:,} bytes."
            self._refuse(BadRequestError("head_too_large", detail, hint=_TOO_LARGE_HINT))

    def on_headers_complete(self) -> None:
        super().on_headers_complete()  # raises where the address cannot be read
        self._in_head = False
        self._stop_timer()
        drain: Drain | None = self.app_state.get(DRAIN)
        if drain is not None:
            drain.asked()
            if drain.leaving:
                self.close_with_answer()

    def send_400_response(self, msg: str) -> None:
        """What uvicorn calls for what is no HTTP."""
        self._refuse(BadRequestError("invalid_http", msg, hint=_UNREADABLE_HINT))

    def _is_next(self) -> bool:
        """Whether the client takes what it reads next for the answer to the message that is being read: none before it
        waits for one, and nothing of its own has been sent.
        """
        if self.cycle is None:
            return True
        if self._in_head:  # the cycle, if any, is that of the message before
            return bool(self.cycle.response_complete)
        return not self.pipeline and not self.cycle.response_started

    def _refuse(self, problem: ProblemError) -> None:
        """Answer without the application, and close the connection: where its next request begins, nobody knows."""
        if not self._is_next():
            self.transport.close()
            return
        request_id = request_id_for(self.headers or [])
        path = self._path()
        v2 = speaks_v2(path)
        content = document_v2(problem) if v2 else document(problem, instance=path, request_id=request_id)
        body = orjson.dumps(content)
        headers = [
            *self.server_state.default_headers,
            (b"content-type", b"application/json" if v2 else b"application/problem+json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
            (b"x-request-id", request_id.encode()),
            (b"x-content-type-options", b"nosniff"),
        ]
        lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
        self.transport.write(b"HTTP/1.1 400 Bad Request\r\n" + lines + b"\r\n" + body)
        self._hang_up()
        client = self.client[0] if self.client else None
        fields = {"request_id": request_id, "path": path, "status": problem.status, "code": problem.code}
        _access.info("a request that cannot be read", extra={**fields, "client": client})

    def _hang_up(self) -> None:
        """Say nothing more, and close once the client does: closed over unread bytes, a connection is reset, and what
        was written to it is lost.
        """
        self._refused = True
        if self.cycle is not None and not self.cycle.response_complete:  # its application ends as for one who has left
            self.cycle.disconnected = True
            self.cycle.waiting_for_100_continue = False
            self.cycle.message_event.set()
        self._stop_timer()
        self._stop_linger_timer()
        self.flow.resume_reading()
        self.transport.write_eof()
        self._linger_timer = self.loop.call_later(LINGER_SECONDS, self._too_slow)

    def _path(self) -> str:
        """The request's path as far as it came, `/` where none did."""
        path: bytes = getattr(self, "url", b"").partition(b"?")[0]  # uvicorn sets it with a message's first byte
        return path.decode("ascii", "replace") if path.startswith(b"/") else "/"

    def close_with_answer(self) -> None:
        """The answer to come, if any, carries `Connection: close`; an idle connection stays as it is.

        So does one whose answer's head has gone out: its client was told nothing, and asks there once more. A signal
        may come between that head and its body.
        """
        if self.cycle is not None and not self.cycle.response_started:
            self.cycle.keep_alive = False

    def on_response_complete(self) -> None:
        super().on_response_complete()
        unread = not self._in_head and self.cycle.response_complete  # of this request, not of a pipelined one
        if unread and not self.transport.is_closing():
            self._linger_timer = self.loop.call_later(LINGER_SECONDS, self._too_slow)

    def on_message_complete(self) -> None:
        self._stop_linger_timer()
        self._in_head = True  # of the connection's next request
        self._head_bytes = 0
        super().on_message_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        self._stop_stall_timer()
        super().resume_writing()

    def _stop_linger_timer(self) -> None:
        if self._linger_timer is not None:
            self._linger_timer.cancel()
            self._linger_timer = None

    def _stop_stall_timer(self) -> None:
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None

    def _watch_reader(self) -> None:
        held = self.transport.get_write_buffer_size()
        self._stall_timer = self.loop.call_later(STALLED_SECONDS, self._check_reader, held)

    def _check_reader(self, held: int) -> None:
        if self.transport.get_write_buffer_size() >= held:
            self.transport.abort()  # closing in good order would wait for the reader
        else:
            self._watch_reader()

    def _start_timer(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self._too_slow)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _too_slow(self) -> None:
        self._head_timer = None
        if not self.transport.is_closing():
            self.transport.close()
