"""How the HTTP processes reach engines: from a model's name to classified images. Without torch."""

import asyncio
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel, ConfigDict

from app import tracing
from app.inference.connection import Connection, ConnectionLost
from app.inference.errors import (
    DeadlineExceeded,
    EngineFailed,
    EngineOverloaded,
    EngineStarting,
    EngineUnavailable,
    InferenceError,
    RequestRefused,
)
from app.inference.figures import ANSWERED, Asked, EngineFigures, Watch
from app.inference.fleet import ask
from app.inference.pace import Queue
from app.inference.protocol import (
    Answer,
    ErrorCode,
    Explained,
    Explanation,
    ImageResult,
    Inferred,
    Output,
    Prepared,
    Preprocessed,
    TensorHead,
    TensorInput,
    Timings,
    cut,
)
from app.inference.routes import Choice, EngineState, Route, RoutesFile
from app.inference.shadow import Shadows
from models.catalog import PRODUCTION, Catalog, ModelNotFound
from store.layout import Layout
from store.settings import Settings

__all__ = [
    "Classified",
    "DeadlineExceeded",
    "EngineFailed",
    "EngineHealth",
    "EngineOverloaded",
    "EngineStarting",
    "EngineUnavailable",
    "Engines",
    "Explanations",
    "InferenceError",
    "ModelNotFound",
    "Pictures",
    "RequestRefused",
    "Tensor",
    "Tensors",
]

_POLL = 0.05  # seconds between looks at an engine that is on its way
_FLEET_GRACE = 5.0  # seconds in which a fleet that died is back, or something is wrong
_PATIENCE = 0.5  # of a request's time may go by until its turn, as it is foreseen; the rest is for what was not
_APART = frozenset({"explain", "preprocess"})  # they are in no batch of what is classified
_MAX_QUEUES = 64  # of versions that are asked or were
_FULL_SECONDS = 0.05  # for which an engine that was full is believed to be full: its queue is far longer than that
_FIGURES_TIMEOUT = 1.0  # seconds after which an engine's figures are missing
_HEALTH_AGE = 1.0  # seconds for which a health answer is good
_HEALTH_TIMEOUT = 5.0  # seconds after which an engine that does not answer is called not ready


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Tensor(_Frozen):
    """A float32 array: `data` are its values, little-endian, in C order."""

    shape: tuple[int, ...]
    data: bytes


class _Answered(_Frozen):
    """`timings_ms` are milliseconds within the engine."""

    model: str
    version: int
    timings_ms: Timings


class Tensors(_Answered):
    """Row i of each tensor is of image i."""

    tensors: dict[Output, Tensor] = {}


class Classified(Tensors):
    """`results[i]` is of image i of the request, row i of each tensor of the i-th image without an error."""

    results: tuple[ImageResult, ...]


class Explanations(_Answered):
    """`results[i]` is of image i, and `overlays[i]` its PNG file, empty where none was asked for or it has an error."""

    results: tuple[Explanation, ...]
    overlays: tuple[bytes, ...]


class Pictures(_Answered):
    """`results[i]` is of image i, and `files[i]` its pixels as a PNG file, empty where it has an error."""

    results: tuple[Preprocessed, ...]
    files: tuple[bytes, ...]


class EngineHealth(_Frozen):
    """Whether the default model's engine computed an answer just now, else why not."""

    ready: bool
    model: str
    version: int | None = None
    reason: str | None = None


class Engines:
    """All engines of this machine, seen from one HTTP process. Needs a running event loop only when called."""

    def __init__(self, layout: Layout, settings: Settings) -> None:
        self._layout = layout
        self._settings = settings
        self._catalog = Catalog(layout.models)
        self._routes = RoutesFile(layout.routes)
        self._connections: dict[str, Connection] = {}
        self._opening = asyncio.Lock()
        self._asking_health = asyncio.Lock()
        self._health: tuple[float, EngineHealth] | None = None
        self._queues: dict[tuple[str, int, bool], Queue] = {}
        self.shadows = Shadows(self._copy)
        self.watch: Watch | None = None  # is told of every request to an engine

    def resolve(self, model_ref: str | None) -> tuple[str, int]:
        """The name and version that serve `name`, `name@3` or `name@alias` now; None is the default model.

        While an alias moves it is the old version, until the new one is ready. Raises ModelNotFound.
        """
        ref = model_ref or self._settings.model
        name, _, selector = ref.partition("@")
        serving = self._routes.read().aliases.get(name, {}).get(selector or PRODUCTION)
        if serving is not None and not ref.endswith("@"):
            return name, serving
        return self._catalog.resolve(ref)

    def _choose(self, model_ref: str | None, draw: float) -> Choice:
        """Who answers a request that drew this number: the version of `resolve`, or the alias's canary."""
        ref = model_ref or self._settings.model
        name, _, selector = ref.partition("@")
        found = None if ref.endswith("@") else self._routes.read().choose(name, selector or PRODUCTION, draw)
        if found is None:
            name, version = self.resolve(model_ref)
            return Choice(model=name, version=version)
        return found

    async def _copy(self, name: str, version: int, fields: dict[str, Any], payload: Sequence[bytes]) -> dict[str, Any]:
        """A shadow's answer, where it has an engine that is ready. Raises InferenceError, OSError, TimeoutError."""
        route = self._routes.read().engine(name, version)
        if route is None or route.state is not EngineState.READY:
            raise EngineUnavailable(f"{name}@{version} is not ready")
        timeout = self._settings.request_timeout
        async with asyncio.timeout(timeout):
            connection = await self._connection(route.socket)
            header, _ = await connection.exchange("classify", {**fields, "timeout": timeout}, payload)
        _raise_error(header)
        return header

    async def classify(
        self,
        model_ref: str | None,
        images: Sequence[bytes],
        *,
        top_k: int = 5,
        outputs: Sequence[Output] = (),
        timeout: float,  # noqa: ASYNC109 - it travels to the engine, which stops working when it is over
    ) -> Classified:
        """Classify encoded images (JPEG, PNG, …) by `name`, `name@3` or `name@alias`; None is the default model.

        Bad images have an error of their own in the results. `top_k` ≥ 1 is clamped to the number of classes; `outputs`
        come as tensors, from the same forward pass; `timeout` is in seconds, the loading of a model that is not loaded
        included. Cancelling the task cancels the work. Raises ModelNotFound, EngineStarting, EngineUnavailable,
        EngineOverloaded, DeadlineExceeded, RequestRefused, EngineFailed. So do all that compute.
        """
        if top_k < 1:
            raise ValueError("top_k must be at least 1")
        fields = {"top_k": top_k, "sizes": [len(image) for image in images], "outputs": outputs}
        name, version, header, payload = await self._ask(model_ref, "classify", fields, images, timeout)
        answer = Answer.model_validate(header)
        tensors = _tensors(answer.tensors, payload)
        timings = answer.timings_ms
        return Classified(model=name, version=version, results=answer.results, tensors=tensors, timings_ms=timings)

    async def infer(
        self,
        model_ref: str | None,
        tensor: bytes,
        *,
        kind: TensorInput,
        shape: Sequence[int],
        outputs: Sequence[Output],
        timeout: float,  # noqa: ASYNC109 - as above
    ) -> Tensors:
        """The outputs for images that the client has prepared itself: `tensor`, little-endian, in C order."""
        fields = {"input": kind, "shape": shape, "outputs": outputs}
        name, version, header, payload = await self._ask(model_ref, "infer", fields, [tensor], timeout)
        answer = Inferred.model_validate(header)
        tensors = _tensors(answer.tensors, payload)
        return Tensors(model=name, version=version, tensors=tensors, timings_ms=answer.timings_ms)

    async def explain(
        self,
        model_ref: str | None,
        images: Sequence[bytes],
        *,
        class_index: int | None,
        overlay: bool,
        timeout: float,  # noqa: ASYNC109 - as above
    ) -> Explanations:
        """Where in each image the network saw `class_index`, or where that is None the likeliest class."""
        sizes = [len(image) for image in images]
        fields = {"class_index": class_index, "overlay": overlay, "sizes": sizes}
        name, version, header, payload = await self._ask(model_ref, "explain", fields, images, timeout)
        answer = Explained.model_validate(header)
        overlays = _files([each.png for each in answer.results], payload)
        timings = answer.timings_ms
        return Explanations(model=name, version=version, results=answer.results, overlays=overlays, timings_ms=timings)

    async def preprocess(
        self,
        model_ref: str | None,
        images: Sequence[bytes],
        *,
        timeout: float,  # noqa: ASYNC109 - as above
    ) -> Pictures:
        """What the network sees of each image, to the bit."""
        fields = {"sizes": [len(image) for image in images]}
        name, version, header, payload = await self._ask(model_ref, "preprocess", fields, images, timeout)
        answer = Prepared.model_validate(header)
        files = _files([each.png for each in answer.results], payload)
        return Pictures(model=name, version=version, results=answer.results, files=files, timings_ms=answer.timings_ms)

    async def _ask(
        self,
        model_ref: str | None,
        op: str,
        fields: dict[str, Any],
        payload: Sequence[bytes],
        timeout: float,  # noqa: ASYNC109 - as above
    ) -> tuple[str, int, dict[str, Any], bytes]:
        """Name and version of the model that answered, its answer's header and payload; asked again of a new engine."""
        deadline = asyncio.get_running_loop().time() + timeout
        images = len(fields.get("sizes", ())) or int(fields.get("shape", (1,))[0])
        lost: str | None = None
        draw = random.random()  # noqa: S311 - a share of requests, no secret
        while True:
            choice = self._choose(model_ref, draw if lost is None else 1.0)  # a second try is the canary's no more
            name, version = choice.model, choice.version
            if lost is None and self._queue(name, version, op).wait(images) > _PATIENCE * timeout:
                raise EngineOverloaded(f"too much waits for {name}@{version}: an answer would not come in time")
            connection = await self._ready(name, version, deadline, lost=lost)
            left = max(deadline - asyncio.get_running_loop().time(), 0.001)
            try:
                with self._watching(name, version, op, images) as watched:
                    async with asyncio.timeout_at(deadline):
                        header, found = await connection.exchange(op, {**fields, "timeout": left}, payload)
                        watched.header = header
            except ConnectionLost as error:
                if lost is not None:
                    raise EngineUnavailable(f"the engine of {name}@{version} died twice over this request") from error
                lost = connection.socket
            except TimeoutError as error:
                raise DeadlineExceeded(f"no answer from {name}@{version} within {timeout:g} s") from error
            else:
                _raise_error(header)
                if op == "classify":
                    self.shadows.copy(choice, fields, payload, header)
                return name, version, header, found

    def refusing(self, model_ref: str | None) -> bool:
        """Whether a request to this model would wait too long, or its engine has just said that it is full: who comes
        now need not send anything. Raises ModelNotFound.
        """
        return self._queue(*self.resolve(model_ref)).refuses(1, patience=_PATIENCE * self._settings.request_timeout)

    def _queue(self, name: str, version: int, op: str = "classify") -> Queue:
        """What is shown and explained has one of its own: it is far slower, and tells nothing of the others' pace."""
        key = (name, version, op in _APART)
        found = self._queues.get(key)
        if found is None:
            if len(self._queues) >= _MAX_QUEUES:
                self._queues = {key: each for key, each in self._queues.items() if not each.idle}
            found = self._queues[key] = Queue()
        return found

    @contextmanager
    def _watching(self, name: str, version: int, op: str, images: int) -> Iterator["_Watched"]:
        """Tells of one request to an engine when it has ended, however it did; its header is put in where it came."""
        watched, queue = _Watched(), self._queue(name, version, op)
        queue.begin(images)
        try:
            yield watched
        except ConnectionLost:
            watched.outcome = "lost"
            raise
        except TimeoutError:
            watched.outcome = ErrorCode.DEADLINE
            raise
        finally:
            asked = watched.asked(name, version, op)
            queue.end(images, answered=asked.outcome == ANSWERED)
            if asked.outcome == ErrorCode.OVERLOADED:
                self._queue(name, version).full(seconds=_FULL_SECONDS)
            if self.watch is not None:
                self.watch(asked)
            if asked.milliseconds:
                tracing.current().stages(asked.milliseconds, model=name, version=version)

    async def figures(self) -> list[EngineFigures]:
        """What every engine tells of itself now; from those that do not answer at once no more than what is known."""
        return list(await asyncio.gather(*(self._figures(route) for route in self._routes.read().engines)))

    async def _figures(self, route: Route) -> EngineFigures:
        figures = EngineFigures(route.model, route.version, ready=False, restarts=route.restarts)
        if route.state is not EngineState.READY:
            return figures
        try:
            async with asyncio.timeout(_FIGURES_TIMEOUT):
                answer = await (await self._connection(route.socket)).request("ping", {"timeout": _FIGURES_TIMEOUT})
            _raise_error(answer)
        except (OSError, TimeoutError, InferenceError):
            return figures
        batches = {int(size): int(count) for size, count in answer.get("batches", {}).items()}
        return replace(figures, ready=True, waiting=int(answer["images"]), batches=batches)

    async def health(self) -> EngineHealth:
        """Whether the default model's engine answers a real inference; an answer is good for a second."""
        async with self._asking_health:
            if self._health is None or time.monotonic() - self._health[0] > _HEALTH_AGE:
                self._health = (time.monotonic(), await self._ask_health())
            return self._health[1]

    async def close(self) -> None:
        await self.shadows.close()
        await asyncio.gather(*(each.close() for each in self._connections.values()))
        self._connections.clear()

    async def _ask_health(self) -> EngineHealth:
        model = self._settings.model
        try:
            name, version = self.resolve(None)
        except ModelNotFound as error:
            return EngineHealth(ready=False, model=model, reason=f"{error}; {error.hint}")
        route = self._routes.read().engine(name, version)
        if route is None or route.state is not EngineState.READY:
            reason = "no engine has been started" if route is None else route.reason or f"the engine is {route.state}"
            return EngineHealth(ready=False, model=name, version=version, reason=reason)
        try:
            async with asyncio.timeout(_HEALTH_TIMEOUT):
                answer = await (await self._connection(route.socket)).request("ping", {"timeout": _HEALTH_TIMEOUT})
            _raise_error(answer)
        except TimeoutError:
            reason = f"the engine has not answered for {_HEALTH_TIMEOUT:g} s"
            return EngineHealth(ready=False, model=name, version=version, reason=reason)
        except (OSError, InferenceError) as error:
            return EngineHealth(ready=False, model=name, version=version, reason=f"the engine does not answer: {error}")
        return EngineHealth(ready=True, model=name, version=version)

    async def _ready(self, name: str, version: int, deadline: float, *, lost: str | None) -> Connection:
        """A connection to the version's engine, which is started where there is none."""
        try:
            async with asyncio.timeout_at(deadline):
                return await self._connect_or_start(name, version, lost=lost)
        except TimeoutError as error:
            raise EngineStarting(f"{name}@{version} is still being loaded") from error

    async def _connect_or_start(self, name: str, version: int, *, lost: str | None) -> Connection:
        """`lost`: the socket of an engine that has just died; a dying process may still accept for a moment."""
        clock = asyncio.get_running_loop().time
        grace_over = clock() + _FLEET_GRACE
        while True:
            route = self._routes.read().engine(name, version)
            socket = route.socket if route is not None and route.state is EngineState.READY else None
            try:
                if socket is not None and (socket != lost or clock() > grace_over):
                    return await self._connection(socket)
            except OSError:
                pass  # it died, and the fleet has not said so yet
            try:
                reply = await ask(self._layout.fleet_socket, {"op": "ensure", "model": name, "version": version})
                if reply["state"] == EngineState.FAILED:
                    raise EngineUnavailable(f"{name}@{version} cannot be served: {reply['reason']}")
            except (OSError, ValueError) as error:
                if clock() > grace_over:
                    raise EngineUnavailable("the process that starts engines does not answer") from error
            await asyncio.sleep(_POLL)

    async def _connection(self, socket: str) -> Connection:
        async with self._opening:
            found = self._connections.get(socket)
            if found is None or found.closed:
                self._connections = {path: each for path, each in self._connections.items() if not each.closed}
                found = self._connections[socket] = await Connection.open(socket)
            return found


@dataclass
class _Watched:
    """What is known of a request to an engine: until it was answered, that whoever waited for it went away."""

    outcome: str = "cancelled"
    header: dict[str, Any] | None = None

    def asked(self, name: str, version: int, op: str) -> Asked:
        header = self.header
        if header is None:
            return Asked(name, version, op, self.outcome)
        if header.get("error") is not None:
            return Asked(name, version, op, str(header["error"]["code"]))
        timings = header.get("timings_ms", {})
        if op == "infer":  # tensors are all good, or the request is refused
            return Asked(name, version, op, ANSWERED, header["tensors"][0]["shape"][0], 0, timings)
        results = header.get("results", ())
        bad = sum(1 for result in results if result.get("error") is not None)
        return Asked(name, version, op, "answered", len(results) - bad, bad, timings)


def _tensors(heads: Sequence[TensorHead], payload: bytes) -> dict[Output, Tensor]:
    pieces = cut(payload, [head.nbytes for head in heads])
    return {head.name: Tensor(shape=head.shape, data=bytes(piece)) for head, piece in zip(heads, pieces, strict=True)}


def _files(sizes: Sequence[int], payload: bytes) -> tuple[bytes, ...]:
    return tuple(bytes(piece) for piece in cut(payload, sizes))


def _raise_error(answer: dict[str, Any]) -> None:
    error = answer.get("error")
    if error is None:
        return
    if error["code"] == ErrorCode.OVERLOADED:
        raise EngineOverloaded(error["message"])
    if error["code"] == ErrorCode.DEADLINE:
        raise DeadlineExceeded(error["message"])
    if error["code"] == ErrorCode.REFUSED:
        raise RequestRefused(error["message"])
    raise EngineFailed(error["message"])
