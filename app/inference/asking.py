"""One question to the engine of one version, and again to another where the first could not answer."""

import asyncio
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from app import tracing
from app.inference.connection import Connection, ConnectionLost
from app.inference.connections import Connections
from app.inference.errors import (
    DeadlineExceeded,
    EngineFailed,
    EngineOverloaded,
    EngineUnavailable,
    InferenceError,
    raise_error,
)
from app.inference.figures import ANSWERED, Asked, Watch, Watched
from app.inference.limits import Limits
from app.inference.pings import Pings
from app.inference.protocol import ErrorCode
from app.inference.queues import Kind, Queues, kind_of, kinds_of
from app.inference.routes import Choice

_PATIENCE = 0.5  # of a request's time may go by until its turn, as it is foreseen; the rest is for what was not
_TRIAL = 0.5  # of a request's time is a canary's; the rest is for the version that serves

Choose = Callable[[str | None, float], Choice]


@dataclass(frozen=True)
class Question:
    """What an engine is asked. `timeout` is in seconds, `size` in bytes."""

    op: str
    fields: dict[str, Any]
    payload: Sequence[bytes]
    timeout: float

    @property
    def images(self) -> int:
        return len(self.fields.get("sizes", ())) or int(self.fields.get("shape", (1,))[0])

    @property
    def size(self) -> int:
        return sum(map(len, self.payload))

    @property
    def kind(self) -> Kind:
        return kind_of(self.op, self.fields)

    @property
    def for_what_serves(self) -> bool:
        """Whether it is no canary's: a tensor is prepared for the version that serves, a class numbered as there."""
        return self.op == "infer" or self.fields.get("class_index") is not None


class Asking:
    """`choose` says who answers a request to a model that drew a number of [0, 1), and raises ModelNotFound.

    `limits` are an engine's for classification.
    """

    def __init__(self, choose: Choose, connections: Connections, pings: Pings, *, limits: Limits) -> None:
        self._choose = choose
        self._connections = connections
        self._pings = pings
        self._queues = Queues(limits)
        self.watch: Watch | None = None  # is told of every request to an engine

    async def ask(self, model_ref: str | None, question: Question) -> tuple[Choice, dict[str, Any], bytes]:
        """Who answered, the answer's header and its payload. Raises ModelNotFound and InferenceError.

        It is asked again of a new engine where the first one died, and of the version that the alias serves where its
        canary does not answer, whatever it says instead: what is on trial costs no client an answer.
        """
        clock = asyncio.get_running_loop().time
        deadline = clock() + question.timeout
        draw = 1.0 if question.for_what_serves else random.random()  # noqa: S311 - a share of requests, no secret
        lost: str | None = None
        while True:
            choice = self._choose(model_ref, draw)
            until = clock() + _TRIAL * (deadline - clock()) if choice.canary else deadline
            try:
                header, payload = await self._answer(choice, question, until, lost=lost)
            except ConnectionLost as error:
                if lost is not None:
                    died = f"the engine of {choice.model}@{choice.version} died twice over this request"
                    raise EngineUnavailable(died) from error
                lost = error.socket
            except InferenceError:
                if not choice.canary:
                    raise
            else:
                return choice, header, payload
            draw = 1.0  # a second try is the canary's no more

    def refusing(self, model_ref: str | None, op: str, *, size: int, timeout: float) -> bool:
        """Whether a request of one image in a body of `size` bytes would be refused, whichever version it falls to, and
        whatever it turns out to bring. Raises ModelNotFound.
        """
        choices = (self._choose(model_ref, draw) for draw in (1.0, 0.0))  # the alias's own version, and its canary
        kinds = ((each, kind) for each in choices for kind in kinds_of(op))
        asked = ((each, kind) for each, kind in kinds if not (each.canary and kind is Kind.NORMALISED))
        queues = ((self._queues.of(each.model, each.version, kind), each.canary) for each, kind in asked)
        patience = _PATIENCE * timeout
        return all(queue.refuses(1, size, patience=patience * (_TRIAL if canary else 1.0)) for queue, canary in queues)

    async def _answer(
        self, choice: Choice, question: Question, deadline: float, *, lost: str | None
    ) -> tuple[dict[str, Any], bytes]:
        """What this version answers. `lost`: the socket of an engine that died over the question.

        Raises ConnectionLost beside what the callers of `ask` are told.
        """
        name, version, clock = choice.model, choice.version, asyncio.get_running_loop().time
        if lost is None:
            self._foresee(choice, question, patience=_PATIENCE * max(deadline - clock(), 0.0))
        if choice.canary:
            connection = await self._connections.at_once(name, version)
        else:
            connection = await self._connections.ready(name, version, deadline, lost=lost)
        left = max(deadline - clock(), 0.001)
        try:
            with self._watching(choice, question, connection, patience=_PATIENCE * left) as watched:
                async with asyncio.timeout_at(deadline):
                    fields = {**question.fields, "timeout": left}
                    header, payload = await connection.exchange(question.op, fields, question.payload)
                    watched.header = header
        except TimeoutError as error:
            raise DeadlineExceeded(f"no answer from {name}@{version} within {question.timeout:g} s") from error
        raise_error(header)
        if choice.canary and _fell_short(header):
            raise EngineFailed(f"{name}@{version} met an error of its own over an image")
        return header, payload

    def _foresee(self, choice: Choice, question: Question, *, patience: float) -> None:
        """Raises EngineOverloaded for what has no place or would come too late; it counts as if the engine said so."""
        name, version = choice.model, choice.version
        queue = self._queues.of(name, version, question.kind)
        if queue.refuses(question.images, question.size, patience=patience):
            if self.watch is not None:
                self.watch(Asked(name, version, question.op, ErrorCode.OVERLOADED))
            raise EngineOverloaded(f"too much waits for {name}@{version}: an answer would not come in time")

    @contextmanager
    def _watching(
        self, choice: Choice, question: Question, connection: Connection, *, patience: float
    ) -> Iterator[Watched]:
        """Tells of one request to an engine when it has ended, however it did; its header is put in where it came."""
        name, version, kind, images, size = choice.model, choice.version, question.kind, question.images, question.size
        watched, queue = Watched(), self._queues.of(name, version, kind)
        queue.begin(images, size)
        try:
            yield watched
        except ConnectionLost:
            watched.outcome = "lost"
            raise
        except TimeoutError:
            watched.outcome = ErrorCode.DEADLINE
            raise
        finally:
            asked = watched.asked(name, version, question.op)
            queue.end(images, size, answered=asked.outcome == ANSWERED)
            if asked.outcome == ErrorCode.OVERLOADED:
                self._queues.full(name, version, kind, images=images, size=size, patience=patience)
            if kind is Kind.SERVED and asked.milliseconds.get("compute"):
                self._pings.answered(connection.socket, seconds=asked.milliseconds["compute"] / 1000)
            if self.watch is not None:  # when the answer is on its way
                asyncio.get_running_loop().call_soon(self.watch, asked)
            if asked.milliseconds:
                tracing.current().stages(asked.milliseconds, model=name, version=version)


def _fell_short(header: Mapping[str, Any]) -> bool:
    """Whether an image has no result by the engine's fault, such as an output that is not finite."""
    errors = (row["error"] for row in header.get("results", ()) if row.get("error") is not None)
    return any(error["code"] == ErrorCode.INTERNAL for error in errors)
