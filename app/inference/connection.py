"""One persistent connection to an engine, shared by any number of requests at once."""

import asyncio
import itertools
from collections.abc import Sequence
from typing import Any

import orjson

from app import tracing
from app.inference.protocol import frame, read_frame


class ConnectionLost(ConnectionError):
    """The engine's end of `socket` is gone. Whether it did the work is unknown and harmless: it may be asked again."""

    def __init__(self, socket: str, reason: str) -> None:
        super().__init__(reason)
        self.socket = socket


class Connection:
    """Sends requests, hands each its own answer by id, and tells the engine of those that nobody waits for any more."""

    def __init__(self, socket: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.socket = socket
        self._writer = writer
        self._ids = itertools.count(1)
        self._pending: dict[int, asyncio.Future[tuple[dict[str, Any], bytes]]] = {}
        self._reading = asyncio.create_task(self._read(reader))

    @classmethod
    async def open(cls, socket: str) -> "Connection":
        """Raises OSError where no engine listens."""
        return cls(socket, *await asyncio.open_unix_connection(socket))

    @property
    def closed(self) -> bool:
        """Also where the transport has met an error, of which the reading task hears a step later."""
        return self._reading.done() or self._writer.is_closing()

    async def request(self, op: str, fields: dict[str, Any], payload: Sequence[bytes] = ()) -> dict[str, Any]:
        """The header of the engine's answer, for answers without a payload. Otherwise like `exchange`."""
        header, _ = await self.exchange(op, fields, payload)
        return header

    async def exchange(
        self, op: str, fields: dict[str, Any], payload: Sequence[bytes] = ()
    ) -> tuple[dict[str, Any], bytes]:
        """The engine's answer, header and payload.

        Raises ConnectionLost. A caller that is cancelled meanwhile cancels the work too.
        """
        if self.closed:
            raise ConnectionLost(self.socket, "the engine has closed the connection")
        number = next(self._ids)
        answer: asyncio.Future[tuple[dict[str, Any], bytes]] = asyncio.get_running_loop().create_future()
        self._pending[number] = answer
        try:
            traceparent = tracing.current().traceparent
            traced = {"traceparent": traceparent} if traceparent else {}
            header = frame({"id": number, "op": op, **traced, **fields}, payload_length=sum(map(len, payload)))
            self._writer.writelines([header, *payload])
            await self._writer.drain()
            return await answer
        except asyncio.CancelledError:
            if not self._writer.is_closing():
                self._writer.write(frame({"id": number, "op": "cancel"}))
            raise
        except ConnectionLost:
            raise
        except (OSError, RuntimeError) as error:  # uvloop says RuntimeError of a transport that is closed
            raise ConnectionLost(self.socket, str(error)) from error
        finally:
            del self._pending[number]
            if answer.done() and not answer.cancelled():
                answer.exception()  # seen, also where the write failed first

    async def close(self) -> None:
        self._reading.cancel()
        self._writer.close()  # the reading task does it, too, unless it has not begun yet
        await asyncio.gather(self._reading, return_exceptions=True)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        reason = "the engine has closed the connection"
        try:
            while True:
                header, payload = await read_frame(reader)
                answer = orjson.loads(header)
                waiting = self._pending.get(answer["id"])
                if waiting is not None and not waiting.done():
                    waiting.set_result((answer, payload))
        except (asyncio.IncompleteReadError, OSError):
            pass
        except ValueError as error:
            reason = f"the engine does not speak the protocol: {error}"
        finally:
            self._writer.close()
            for waiting in self._pending.values():
                if not waiting.done():
                    waiting.set_exception(ConnectionLost(self.socket, reason))
