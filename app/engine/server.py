"""The engine's unix socket: frames in, answers out in the order in which they are ready."""

import asyncio
import contextlib
import logging
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from app.engine.batch import ComputeFailed
from app.engine.pipeline import Overloaded, Pipeline
from app.inference.protocol import ErrorCode, Request, frame, read_frame

log = logging.getLogger(__name__)

_READ_AHEAD = 2**20  # bytes of a frame taken from the kernel before the loop looks elsewhere
_QUIET = 0.1  # seconds without work after which a draining engine believes that nobody is on the way to it


class Server:
    """Serves one pipeline to any number of connections."""

    def __init__(self, pipeline: Pipeline, *, max_payload: int) -> None:
        self._pipeline = pipeline
        self._max_payload = max_payload
        self._server: asyncio.Server | None = None
        self._work: set[asyncio.Task[None]] = set()

    async def listen(self, socket: Path) -> None:
        """Raises OSError. Only this user may connect."""
        self._server = await asyncio.start_unix_server(self._connection, socket, limit=_READ_AHEAD)
        _own(socket)

    async def drain(self, *, seconds: float) -> None:
        """Take no new connection, and return when nothing is under way, at the latest after `seconds`."""
        if self._server is not None:
            self._server.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    if self._work:
                        await asyncio.wait(self._work)
                    await asyncio.sleep(_QUIET)
                    if not self._work:
                        return

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks: dict[int, asyncio.Task[None]] = {}
        try:
            while True:
                header, payload = await read_frame(reader, max_payload=self._max_payload)
                request = Request.model_validate_json(header)
                if request.op == "cancel":
                    if request.id in tasks:
                        tasks[request.id].cancel()
                    continue
                task = asyncio.create_task(self._answer(request, payload, writer))
                del payload  # the next frame may be long in coming
                tasks[request.id] = task
                self._work.add(task)
                task.add_done_callback(self._work.discard)
                task.add_done_callback(partial(_forget, tasks, request.id))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except asyncio.CancelledError:  # the loop ends; asyncio's streams would log it as an error
            pass
        except (ValidationError, ValueError) as error:
            log.warning("a client does not speak the protocol", extra={"reason": str(error)})
        finally:
            for task in tuple(tasks.values()):  # nobody is left to read their answers
                task.cancel()
            writer.close()

    async def _answer(self, request: Request, payload: bytes, writer: asyncio.StreamWriter) -> None:
        try:
            answer = await self._work_on(request, payload)
        except Overloaded as error:
            answer = _error(ErrorCode.OVERLOADED, str(error))
        except TimeoutError:
            answer = _error(ErrorCode.DEADLINE, f"no answer within {request.timeout:g} s")
        except (ComputeFailed, ValueError) as error:
            answer = _error(ErrorCode.INTERNAL, str(error))
        except Exception:
            log.exception("a request failed")
            answer = _error(ErrorCode.INTERNAL, "the engine met an error of its own")
        with contextlib.suppress(ConnectionError):
            writer.write(frame({"id": request.id, **answer}))
            await writer.drain()

    async def _work_on(self, request: Request, payload: bytes) -> dict[str, Any]:
        if request.op == "ping":
            await self._pipeline.ping(timeout=request.timeout)
            return {"images": self._pipeline.images, "idle_seconds": round(self._pipeline.idle_seconds, 3)}
        if sum(request.sizes) != len(payload):
            raise ValueError("the sizes do not add up to the payload")
        view, start, images = memoryview(payload), 0, []
        for size in request.sizes:
            images.append(view[start : start + size])
            start += size
        answer = await self._pipeline.classify(images, k=request.top_k, timeout=request.timeout)
        return answer.model_dump()


def _own(socket: Path) -> None:
    socket.chmod(0o600)


def _forget(tasks: dict[int, asyncio.Task[None]], number: int, _: asyncio.Task[None]) -> None:
    tasks.pop(number, None)


def _error(code: ErrorCode, message: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message}}
