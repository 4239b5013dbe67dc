"""The engine's unix socket: frames in, answers out in the order in which they are ready."""

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from app.engine.admission import Overloaded
from app.engine.batch import ComputeFailed
from app.engine.pipeline import Pipeline
from app.engine.tensors import Refused
from app.inference.protocol import (
    Cancel,
    Classify,
    ClassifyAnswer,
    ErrorCode,
    Explain,
    ExplainAnswer,
    FrameTooLarge,
    Infer,
    InferAnswer,
    Ping,
    Preprocess,
    PreprocessAnswer,
    Work,
    frame,
    parse_request,
    read_frame,
)

log = logging.getLogger(__name__)

_READ_AHEAD = 2**20  # bytes of a frame taken from the kernel before the loop looks elsewhere
_QUIET = 0.1  # seconds without work after which a draining engine believes that nobody is on the way to it


class _Answers:
    """What goes out on one connection. Answers of one turn of the event loop, those of a batch say, leave together."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._pieces: list[bytes] = []

    async def send(self, pieces: Sequence[bytes]) -> None:
        """Raises ConnectionError."""
        if not self._pieces:
            asyncio.get_running_loop().call_soon(self._flush)
        self._pieces += pieces
        await self._writer.drain()  # which waits while too much is on its way

    def _flush(self) -> None:
        pieces, self._pieces = self._pieces, []
        with contextlib.suppress(
            ConnectionError, RuntimeError
        ):  # uvloop says RuntimeError of a transport that is closed
            self._writer.writelines(pieces)


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
        answers = _Answers(writer)
        try:
            while True:
                header, payload = await read_frame(reader, max_payload=self._max_payload)
                request = parse_request(header)
                if isinstance(request, Cancel):
                    if request.id in tasks:
                        tasks[request.id].cancel()
                    continue
                task = asyncio.create_task(self._answer(request, payload, answers))
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

    async def _answer(self, request: Work, payload: bytes, answers: _Answers) -> None:
        pieces: Sequence[bytes] = ()
        try:
            answer, pieces = await self._work_on(request, payload)
        except Overloaded as error:
            answer = _error(ErrorCode.OVERLOADED, str(error))
        except TimeoutError:
            answer = _error(ErrorCode.DEADLINE, f"no answer within {request.timeout:g} s")
        except Refused as error:
            answer = _error(ErrorCode.REFUSED, str(error))
        except (ComputeFailed, ValueError) as error:
            answer = _error(ErrorCode.INTERNAL, str(error))
        except Exception:
            log.exception("a request failed", extra={"traceparent": request.traceparent})
            answer = _error(ErrorCode.INTERNAL, "the engine met an error of its own")
        try:
            head = frame({"id": request.id, **answer}, payload_length=sum(map(len, pieces)))
        except FrameTooLarge as error:
            head, pieces = frame({"id": request.id, **_error(ErrorCode.REFUSED, str(error))}), ()
        with contextlib.suppress(ConnectionError):
            await answers.send([head, *pieces])

    async def _work_on(self, request: Work, payload: bytes) -> tuple[dict[str, Any], Sequence[bytes]]:
        """The answer's header, without its id, and its payload."""
        pipeline, timeout = self._pipeline, request.timeout
        answer: ClassifyAnswer | InferAnswer | ExplainAnswer | PreprocessAnswer
        match request:
            case Classify(top_k=k, outputs=outputs):
                answer = await pipeline.classify(request.files(payload), k=k, outputs=outputs, timeout=timeout)
            case Infer(input=kind, shape=shape, outputs=outputs):
                answer = await pipeline.infer(payload, kind=kind, shape=shape, outputs=outputs, timeout=timeout)
            case Explain(class_index=index, overlay=overlay):
                files = request.files(payload)
                answer = await pipeline.explain(files, class_index=index, with_overlay=overlay, timeout=timeout)
            case Preprocess():
                answer = await pipeline.preprocess(request.files(payload), timeout=timeout)
            case Ping():
                await pipeline.ping(timeout=timeout)
                batches = {str(size): count for size, count in pipeline.batches.items()}
                idle = round(pipeline.idle_seconds, 3)
                return {"images": pipeline.images, "idle_seconds": idle, "batches": batches}, ()
        return answer.model_dump(), answer.payload


def _own(socket: Path) -> None:
    socket.chmod(0o600)


def _forget(tasks: dict[int, asyncio.Task[None]], number: int, _: asyncio.Task[None]) -> None:
    tasks.pop(number, None)


def _error(code: ErrorCode, message: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message}}
