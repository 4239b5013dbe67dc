"""How the HTTP processes reach engines: from a model's name to classified images. Without torch."""

import asyncio
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from app import tracing
from app.inference.answers import (
    Classified,
    EngineHealth,
    Explanations,
    Pictures,
    Tensors,
    files,
    tensors,
)
from app.inference.connection import ConnectionLost
from app.inference.connections import Connections
from app.inference.errors import (
    DeadlineExceeded,
    EngineOverloaded,
    EngineUnavailable,
    InferenceError,
    raise_error,
)
from app.inference.figures import ANSWERED, EngineFigures, Watch, Watched
from app.inference.pace import Queue
from app.inference.protocol import (
    Answer,
    ErrorCode,
    Explained,
    Inferred,
    Output,
    Prepared,
    TensorInput,
)
from app.inference.routes import Choice, EngineState, Route, RoutesFile
from app.inference.shadow import Shadows
from models.catalog import PRODUCTION, Catalog, ModelNotFound
from store.layout import Layout
from store.settings import Settings

_PATIENCE = 0.5  # of a request's time may go by until its turn, as it is foreseen; the rest is for what was not
_APART = frozenset({"explain", "preprocess"})  # they are in no batch of what is classified
_MAX_QUEUES = 64  # of versions that are asked or were
_FULL_SECONDS = 0.05  # for which an engine that was full is believed to be full: its queue is far longer than that
_FIGURES_TIMEOUT = 1.0  # seconds after which an engine's figures are missing
_HEALTH_AGE = 1.0  # seconds for which a health answer is good
_HEALTH_TIMEOUT = 5.0  # seconds after which an engine that does not answer is called not ready


class Engines:
    """All engines of this machine, seen from one HTTP process. Needs a running event loop only when called."""

    def __init__(self, layout: Layout, settings: Settings) -> None:
        self._settings = settings
        self._catalog = Catalog(layout.models)
        self._routes = RoutesFile(layout.routes)
        self._connections = Connections(self._routes, layout.fleet_socket)
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
            connection = await self._connections.open(route.socket)
            header, _ = await connection.exchange("classify", {**fields, "timeout": timeout}, payload)
        raise_error(header)
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
        found = tensors(answer.tensors, payload)
        timings = answer.timings_ms
        return Classified(model=name, version=version, results=answer.results, tensors=found, timings_ms=timings)

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
        found = tensors(answer.tensors, payload)
        return Tensors(model=name, version=version, tensors=found, timings_ms=answer.timings_ms)

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
        overlays = files([each.png for each in answer.results], payload)
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
        pictures = files([each.png for each in answer.results], payload)
        return Pictures(
            model=name, version=version, results=answer.results, files=pictures, timings_ms=answer.timings_ms
        )

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
            connection = await self._connections.ready(name, version, deadline, lost=lost)
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
                raise_error(header)
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
    def _watching(self, name: str, version: int, op: str, images: int) -> Iterator["Watched"]:
        """Tells of one request to an engine when it has ended, however it did; its header is put in where it came."""
        watched, queue = Watched(), self._queue(name, version, op)
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
            answer = await self._ping(route, seconds=_FIGURES_TIMEOUT)
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
        await self._connections.close()

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
            await self._ping(route, seconds=_HEALTH_TIMEOUT)
        except TimeoutError:
            reason = f"the engine has not answered for {_HEALTH_TIMEOUT:g} s"
            return EngineHealth(ready=False, model=name, version=version, reason=reason)
        except (OSError, InferenceError) as error:
            return EngineHealth(ready=False, model=name, version=version, reason=f"the engine does not answer: {error}")
        return EngineHealth(ready=True, model=name, version=version)

    async def _ping(self, route: Route, *, seconds: float) -> dict[str, Any]:
        """What an engine answers to a real inference. Raises InferenceError, OSError, TimeoutError."""
        async with asyncio.timeout(seconds):
            connection = await self._connections.open(route.socket)
            answer: dict[str, Any] = await connection.request("ping", {"timeout": seconds})
        raise_error(answer)
        return answer
