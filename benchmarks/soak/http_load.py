"""A client that costs little and forgives nothing: HTTP/1.1 over asyncio streams, no request is ever sent twice."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

Address = tuple[str, int]
BROKEN = 0  # the status of a request whose connection failed
_HEAD = b"\r\n\r\n"


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
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes, *, due: float | None = None) -> Answer:
        """`due`: the moment (perf_counter) from which it counts; now where that is None."""
        now = time.perf_counter()
        began = now if due is None else due
        try:
            reader, writer = await self._open()
            writer.write(request)
            await writer.drain()
            head = (await reader.readuntil(_HEAD)).lower()
            length = int(head.partition(b"content-length: ")[2].split(b"\r\n", 1)[0] or b"0")
            body = await reader.readexactly(length)
            if b"connection: close" in head:
                self.close()
            return Answer(int(head[9:12]), time.perf_counter() - began, body, late=now - began)
        except (OSError, EOFError, ValueError) as error:
            self.close()
            return Answer(BROKEN, time.perf_counter() - began, reason=repr(error))

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is not None and self._streams[0].at_eof():  # it was idle, and the server closed it
            self.close()
        if self._streams is None:
            self._streams = await asyncio.open_connection(*self.address)
        return self._streams

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


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
