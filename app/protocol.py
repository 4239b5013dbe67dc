"""uvicorn's HTTP protocol with the bounds that it lacks: on the time and on the bytes of a request's head, on what
chunks bring beside a body's bytes, on how long a client may read nothing of its answer, and may send a body that was
answered already; with a polite end, with problems for what cannot be read, and with answers that no application gives:
of `app/turning_away.py` and of `app/plain.py`.

The bounds on the time of a body that is read are in `app/bodies.py`.
"""

import asyncio
from collections.abc import Coroutine
from typing import cast
from urllib.parse import unquote

from starlette.types import Scope
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from app.account import Account, request_id_for
from app.doorkeeper import Doorkeeper
from app.drain import Drain
from app.plain import PLAIN, Plain
from app.problems import BadRequestError, ProblemError
from app.responses import tell
from app.turning_away import TURNING_AWAY, TurningAway

DRAIN, ACCOUNT = "drain", "account"  # where the application's lifespan puts its Drain and its Account

HEAD_SECONDS = 10.0  # from a connection's first byte, or its opening, to the end of a request's head
HEAD_BYTES = 64 * 1024  # of a head, and of chunks' extensions and trailers without a byte of the body
LINGER_SECONDS = 10.0  # what a refused request's client is still sending is thrown away
BODY_SECONDS = 0.05  # a whole body may take to be answered without the application
STALLED_SECONDS = 30.0  # an answer waits for its client, who has not taken a byte for so long
_UNREADABLE_HINT = (
    "Look at the request's first line, its headers, Content-Length, and the chunks of its body; "
    "TLS is spoken by a proxy in front of this server, not by itself."
)
_TOO_LARGE_HINT = "Send a shorter address and fewer or shorter headers; what is long goes into the body."
_Start = tuple[RequestResponseCycle, ASGI3Application]


class HttpProtocol(HttpToolsProtocol):
    """Closes connections that send their head too slowly (slowloris) or endlessly, and those that stop reading.

    While a client does not read, uvicorn holds 64 KiB for it and its answer's source, an event stream say, waits. Cut
    off, the client comes back with its last id.
    """

    _head_timer: asyncio.TimerHandle | None = None
    _head_bytes = 0  # since the message's beginning, or the last byte of its body
    _in_head = True
    _stall_timer: asyncio.TimerHandle | None = None
    _linger_timer: asyncio.TimerHandle | None = None
    _refused = False  # nothing is read on this connection any more, only thrown away
    _reading = False  # in what has arrived
    _held: _Start | None = None  # until what has arrived with its head was read, or a little longer
    _body_timer: asyncio.TimerHandle | None = None
    _let_in = False  # the request that is held was seen by who might turn it away
    _work: asyncio.Task[None] | None = None  # of a request that is answered without the application

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._stop_stall_timer()
        self._stop_linger_timer()
        if self._work is not None:  # nobody is left to read the answer
            self._work.cancel()
        super().connection_lost(exc)
        self._start_application()  # it records that its client has left

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        if self._in_head and self._head_timer is None:
            self._start_timer()
        self._head_bytes += len(data)
        self._reading = True
        super().data_received(data)
        self._reading = False
        self._turn_away(b"")
        self._start_held()
        over = self._head_bytes > HEAD_BYTES and not self._refused and not self.transport.is_closing()
        if over and self._in_head:
            detail = f"The request's head is larger than {HEAD_BYTES:,} bytes."
            self._refuse(BadRequestError("head_too_large", detail, hint=_TOO_LARGE_HINT))
        elif over:
            detail = f"The body's chunks bring {HEAD_BYTES:,} bytes of extensions or trailers, and nothing else."
            self._refuse(BadRequestError("invalid_http", detail, hint=_UNREADABLE_HINT))

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # uvicorn would put a trailer among the head's fields, as if the client had said it there
            super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        self._head_bytes = 0
        self._turn_away(body)
        super().on_body(body)

    def on_headers_complete(self) -> None:
        super().on_headers_complete()  # raises where the address cannot be read
        self._in_head = False
        self._head_bytes = 0
        self._stop_timer()
        drain: Drain | None = self.app_state.get(DRAIN)
        if drain is not None:
            drain.asked()
            if drain.leaving:
                self.close_with_answer()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        if self._reading:
            self._held, self._let_in = (cycle, app), False
        else:
            super()._start_asgi_task(cycle, app)

    def _turn_away(self, beginning: bytes) -> None:
        """The request that is held, if any, where it has to go. `beginning`: what is here of its body."""
        turning_away: TurningAway | None = self.app_state.get(TURNING_AWAY)
        if self._held is None or self._let_in or self._refused or turning_away is None:
            return
        cycle, _ = self._held
        answer = turning_away.answer(cast("Scope", cycle.scope), beginning)
        self._let_in = not Doorkeeper.undecided(cast("Scope", cycle.scope))
        if answer is not None:
            self._let_go()
            self._respond(cycle, *answer)

    def _start_held(self) -> None:
        """Answer the request that is held, if any, or start the application for it; or wait a moment for its body."""
        if self._held is None:
            return
        cycle, app = self._held
        plain: Plain | None = self.app_state.get(PLAIN)
        shut = self._refused or self.transport.is_closing() or self.flow.write_paused
        if plain is None or app is not self.app or shut:
            self._start_application()
        elif not cycle.more_body:
            request = plain.read(cast("Scope", cycle.scope), cycle.body)
            if request is None:
                self._start_application()
            else:
                self._start_work(cycle, plain.answer(request))
        elif self._body_timer is not None or plain.awaits(cast("Scope", cycle.scope)):
            self._body_timer = self._body_timer or self.loop.call_later(BODY_SECONDS, self._start_application)
            self.flow.resume_reading()  # uvicorn stops for a long body until somebody takes it
        else:
            self._start_application()

    def _let_go(self) -> _Start | None:
        """What was held until now."""
        if self._body_timer is not None:
            self._body_timer.cancel()
            self._body_timer = None
        held, self._held = self._held, None
        return held

    def _start_application(self) -> None:
        held = self._let_go()
        if held is not None:
            super()._start_asgi_task(*held)

    def _start_work(self, cycle: RequestResponseCycle, work: Coroutine[None, None, tuple[bytes, bytes]]) -> None:
        """Answer by `work`, a whole response in two pieces, what is held."""
        self._let_go()
        cycle.body.clear()
        self.flow.resume_reading()  # so that it is heard when the client leaves
        self._work = self.loop.create_task(self._answer(cycle, work))
        self.tasks.add(self._work)  # who shuts down waits for them
        self._work.add_done_callback(self.tasks.discard)

    async def _answer(self, cycle: RequestResponseCycle, work: Coroutine[None, None, tuple[bytes, bytes]]) -> None:
        try:
            head, body = await work
        except BaseException:  # also where a shutdown cannot wait for it
            if not cycle.disconnected:
                self.transport.close()
            raise
        finally:
            self._work = None
        if not cycle.disconnected:
            self._respond(cycle, head, body)

    def _respond(self, cycle: RequestResponseCycle, head: bytes, body: bytes) -> None:
        """A whole response in one write. `head` comes without its last line."""
        defaults = b"".join(b"%s: %s\r\n" % header for header in self.server_state.default_headers)
        end = b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n"
        self.transport.write(head + defaults + end + body)
        cycle.response_started = cycle.response_complete = True
        cycle.on_response = lambda: None  # as uvicorn does: it holds this connection
        cycle.body.clear()
        if not cycle.keep_alive:
            self.transport.close()
        self.on_response_complete()

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
        told = tell(problem, path=path, request_id=request_id)
        headers = [
            *self.server_state.default_headers,
            (b"content-type", told.media_type.encode()),
            (b"content-length", str(len(told.body)).encode()),
            (b"connection", b"close"),
            (b"x-request-id", request_id.encode()),
            (b"x-content-type-options", b"nosniff"),
        ]
        lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
        self.transport.write(b"HTTP/1.1 400 Bad Request\r\n" + lines + b"\r\n" + told.body)
        self._hang_up()
        account: Account | None = self.app_state.get(ACCOUNT)
        if account is not None:
            # With its head whole, the application has the request, and records that it left.
            client, answered = self.client[0] if self.client else None, told.status if self._in_head else 0
            account.unreadable(problem, path=path, request_id=request_id, client=client, answered=answered)

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
        """The request's path as far as it came, not percent-encoded; `/` where none did."""
        path: bytes = getattr(self, "url", b"").partition(b"?")[0]  # uvicorn sets it with a message's first byte
        return unquote(path.decode("ascii", "replace")) if path.startswith(b"/") else "/"

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
        self._turn_away(b"")
        self._stop_linger_timer()
        self._in_head = True  # of the connection's next request
        self._head_bytes = 0
        super().on_message_complete()
        if self.cycle.response_complete and not self.transport.is_closing():  # what came since ended uvicorn's timer
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

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
