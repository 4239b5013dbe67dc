"""A client that costs little and forgives nothing: HTTP/1.1 on bare transports, no request is ever sent twice."""

import asyncio
import gc
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

Address = tuple[str, int]
BROKEN = 0  # the status of a request whose connection failed
_HEAD = b"\r\n\r\n"
_SEND_BUFFER = 2**20  # bytes: a request leaves by one call of the kernel


@dataclass(frozen=True)
class Answer:
    """`status` is BROKEN where none came. `seconds` from when the request was due, or sent, to its last byte.

    `late`: those of them that went by before this client came to it.
    """

    status: int
    seconds: float
    body: bytes = b""
    reason: str = ""
    late: float = 0.0

    @property
    def without_body(self) -> "Answer":
        """To keep: there are many thousands of them."""
        return replace(self, body=b"")


def put(path: str, body: bytes, **headers: str) -> bytes:
    """A whole request."""
    lines = [f"PUT {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + _HEAD + body


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


class Connection:
    """One keep-alive connection: opened when it is needed, and again after the server has said that it closes it."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._line: _Line | None = None

    async def ask(self, request: bytes, *, due: float | None = None) -> Answer:
        """`due`: the moment (perf_counter) from which it counts; now where that is None."""
        now = time.perf_counter()
        began = now if due is None else due
        try:
            head, body = await (await self._open()).ask(request)
            if b"connection: close" in head:
                self.close()
            return Answer(int(head[9:12]), time.perf_counter() - began, body, late=now - began)
        except (OSError, EOFError, ValueError) as error:
            self.close()
            return Answer(BROKEN, time.perf_counter() - began, reason=repr(error))

    async def _open(self) -> "_Line":
        if self._line is not None and self._line.lost:  # it was idle, and the server closed it
            self.close()
        if self._line is None:
            _, self._line = await asyncio.get_running_loop().create_connection(_Line, *self.address)
        return self._line

    def close(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None


class _Line(asyncio.Protocol):
    """A connection that is told of one whole answer at a time."""

    def __init__(self) -> None:
        self.lost = False
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[tuple[bytes, bytes]] | None = None
        self._read = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or EOFError("closed without an answer"))

    def data_received(self, data: bytes) -> None:
        """Raises nothing: what cannot be read is the request's failure."""
        self._read += data
        head, whole, rest = self._read.partition(_HEAD)
        if not whole or self._answer is None or self._answer.done():
            return
        head = head.lower()
        try:
            length = int(head.partition(b"content-length: ")[2].split(b"\r\n", 1)[0] or b"0")
        except ValueError as error:
            self._answer.set_exception(error)
            return
        if len(rest) >= length:
            self._read = rest[length:]
            self._answer.set_result((head, rest[:length]))

    def ask(self, request: bytes) -> "asyncio.Future[tuple[bytes, bytes]]":
        """The answer's head in lower case, and its body. The answer before has to be here. Raises OSError, EOFError."""
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answer

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


async def closed_loop(ask: Callable[[int], Awaitable[None]], *, clients: int, going: Callable[[], bool]) -> None:
    """`clients` that each ask again as soon as they were answered, while `going()`. `ask(n)` is client n's next."""

    async def one(number: int) -> None:
        while going():
            await ask(number)

    await asyncio.gather(*(one(number) for number in range(clients)))


@dataclass
class OpenLoop:
    """Requests at a fixed rate, whether or not the earlier ones were answered: what a crowd does."""

    address: Address
    requests: Sequence[bytes]
    rate: float
    seconds: float
    answers: list[Answer] = field(default_factory=list)
    _idle: list[Connection] = field(default_factory=list)
    _under_way: set[asyncio.Task[None]] = field(default_factory=set)

    async def run(self) -> list[Answer]:
        """Every request's answer; `seconds` of each counts from the moment at which it was due."""
        gc.disable()  # it would look through all answers, again and again, while the server waits to be read
        try:
            return await self._all()
        finally:
            gc.enable()

    async def _all(self) -> list[Answer]:
        began = time.perf_counter()
        for number in range(int(self.rate * self.seconds)):
            due = began + number / self.rate
            if (early := due - time.perf_counter()) > 0.0005:
                await asyncio.sleep(early)
            task = asyncio.create_task(self._one(self.requests[number % len(self.requests)], due))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)
            if not number % 32:
                await asyncio.sleep(0)  # the loop has also to read
        if self._under_way:
            await asyncio.wait(self._under_way)
        for connection in self._idle:
            connection.close()
        return self.answers

    async def _one(self, request: bytes, due: float) -> None:
        connection = self._idle.pop() if self._idle else Connection(self.address)
        self.answers.append(await connection.ask(request, due=due))
        self._idle.append(connection)
