"""uvicorn's HTTP protocol with the bounds that it lacks: on the time and on the bytes of a request's head, on how long
a client may read nothing of its answer, and may send a body that was answered already; and with a polite end.

The bounds on the time of a body that is read are in `app/bodies.py`.
"""

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.drain import Drain

DRAIN = "drain"  # where the application's lifespan puts its Drain

HEAD_SECONDS = 10.0  # from a connection's first byte, or its opening, to the end of a request's head
HEAD_BYTES = 64 * 1024
LINGER_SECONDS = 10.0  # a refused request's body is still coming, and is thrown away
STALLED_SECONDS = 30.0  # an answer waits for its client, who has not taken a byte for so long


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

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._stop_stall_timer()
        self._stop_linger_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._in_head and self._head_timer is None:
            self._start_timer()
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        # The count includes what came of a body with the head's last piece, hence the look at `_in_head` again.
        if self._in_head and self._head_bytes > HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("The request's head is too large.")

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._stop_timer()
        super().on_headers_complete()
        drain: Drain | None = self.app_state.get(DRAIN)
        if drain is not None:
            drain.asked()
            if drain.leaving:
                self.close_with_answer()

    def close_with_answer(self) -> None:
        """The answer to come, if any, carries `Connection: close`; an idle connection stays as it is."""
        if self.cycle is not None:
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
