"""How the HTTP processes reach engines: from a model's name to classified images. Without torch."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict

from app.inference.connection import Connection, ConnectionLost
from app.inference.errors import (
    DeadlineExceeded,
    EngineFailed,
    EngineOverloaded,
    EngineStarting,
    EngineUnavailable,
    InferenceError,
)
from app.inference.protocol import Answer, ErrorCode, ImageResult, Timings
from app.inference.routes import EngineState, RoutesFile
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
    "InferenceError",
    "ModelNotFound",
]

_POLL = 0.05  # seconds between looks at an engine that is on its way
_FLEET_GRACE = 5.0  # seconds in which a fleet that died is back, or something is wrong
_HEALTH_AGE = 1.0  # seconds for which a health answer is good
_HEALTH_TIMEOUT = 5.0  # seconds after which an engine that does not answer is called not ready


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Classified(_Frozen):
    """`results[i]` is of image i of the request; `timings_ms` are milliseconds within the engine."""

    model: str
    version: int
    results: tuple[ImageResult, ...]
    timings_ms: Timings


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

    async def classify(
        self,
        model_ref: str | None,
        images: Sequence[bytes],
        *,
        top_k: int = 5,
        timeout: float,  # noqa: ASYNC109 - it travels to the engine, which stops working when it is over
    ) -> Classified:
        """Classify encoded images (JPEG, PNG, …) by `name`, `name@3` or `name@alias`; None is the default model.

        Bad images have an error of their own in the results. `top_k` ≥ 1 is clamped to the number of classes; `timeout`
        is in seconds, the loading of a model that is not loaded included. Cancelling the task cancels the work.
        Raises ModelNotFound, EngineStarting, EngineUnavailable, EngineOverloaded, DeadlineExceeded, EngineFailed.
        """
        if top_k < 1:
            raise ValueError("top_k must be at least 1")
        deadline = asyncio.get_running_loop().time() + timeout
        sizes = [len(image) for image in images]
        lost: str | None = None
        while True:
            name, version = self.resolve(model_ref)
            connection = await self._ready(name, version, deadline, lost=lost)
            left = max(deadline - asyncio.get_running_loop().time(), 0.001)
            try:
                async with asyncio.timeout_at(deadline):
                    fields = {"top_k": top_k, "sizes": sizes, "timeout": left}
                    answer = await connection.request("classify", fields, images)
                return _classified(name, version, answer)
            except ConnectionLost as error:
                if lost is not None:
                    raise EngineUnavailable(f"the engine of {name}@{version} died twice over this request") from error
                lost = connection.socket
            except TimeoutError as error:
                raise DeadlineExceeded(f"no answer from {name}@{version} within {timeout:g} s") from error

    async def health(self) -> EngineHealth:
        """Whether the default model's engine answers a real inference; an answer is good for a second."""
        async with self._asking_health:
            if self._health is None or time.monotonic() - self._health[0] > _HEALTH_AGE:
                self._health = (time.monotonic(), await self._ask_health())
            return self._health[1]

    async def close(self) -> None:
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
                reply = await self._ask_fleet({"op": "ensure", "model": name, "version": version})
                if reply["state"] == EngineState.FAILED:
                    raise EngineUnavailable(f"{name}@{version} cannot be served: {reply['reason']}")
            except (OSError, ValueError) as error:
                if clock() > grace_over:
                    raise EngineUnavailable("the process that starts engines does not answer") from error
            await asyncio.sleep(_POLL)

    async def _ask_fleet(self, request: dict[str, Any]) -> dict[str, Any]:
        """One line of JSON there, one back. Raises OSError or ValueError where the fleet is gone."""
        reader, writer = await asyncio.open_unix_connection(str(self._layout.fleet_socket))
        try:
            writer.write(orjson.dumps(request) + b"\n")
            await writer.drain()
            reply: dict[str, Any] = orjson.loads(await reader.readline())
            return reply
        finally:
            writer.close()

    async def _connection(self, socket: str) -> Connection:
        async with self._opening:
            found = self._connections.get(socket)
            if found is None or found.closed:
                self._connections = {path: each for path, each in self._connections.items() if not each.closed}
                found = self._connections[socket] = await Connection.open(socket)
            return found


def _classified(name: str, version: int, answer: dict[str, Any]) -> Classified:
    _raise_error(answer)
    parsed = Answer.model_validate(answer)
    return Classified(model=name, version=version, results=parsed.results, timings_ms=parsed.timings_ms)


def _raise_error(answer: dict[str, Any]) -> None:
    error = answer.get("error")
    if error is None:
        return
    if error["code"] == ErrorCode.OVERLOADED:
        raise EngineOverloaded(error["message"])
    if error["code"] == ErrorCode.DEADLINE:
        raise DeadlineExceeded(error["message"])
    raise EngineFailed(error["message"])
