"""What engines tell of themselves: figures, and whether they are alive."""

import asyncio
import math
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from app.inference.answers import EngineHealth
from app.inference.connections import Connections
from app.inference.errors import InferenceError, raise_error
from app.inference.figures import EngineFigures
from app.inference.routes import EngineState, Route, RoutesFile

_FIGURES_TIMEOUT = 1.0  # seconds after which an engine's figures are missing
_PING_TIMEOUT = 10.0  # seconds after which a ping is given up: the fleet ends an engine that is silent for longer
_HEALTH_AGE = 0.5  # seconds for which what a ping told is good: with the next, /readyz tells of a hang within two
SILENCE = 1.4  # seconds in which an engine answers something, or it is called not ready
_HEARING = 0.05  # seconds more before it is: where this process was held up itself, what came meanwhile is heard first
_BATCHES = 2.0  # it may be silent for so many of its slowest batches, where that is longer: it computes
_FADING = 0.8  # of what was slowest is left with every answer


class Signs:
    """When an engine computed an answer last, and how long its batches take it. Times are of time.monotonic."""

    def __init__(self, silence: float) -> None:
        self.heard = -math.inf
        self._silence = silence
        self._slowest = 0.0

    def answered(self, seconds: float) -> None:
        """It has just computed an answer, which took it so long."""
        self.heard = time.monotonic()
        self._slowest = min(max(seconds, self._slowest * _FADING), _PING_TIMEOUT)

    @property
    def patience(self) -> float:
        """Seconds for which it may be silent with work in its hands."""
        return max(self._silence, _BATCHES * self._slowest)


@dataclass
class _Probe:
    """A ping to one engine. Its result is why the engine is not ready; None where it is."""

    socket: str
    signs: Signs
    asking: "asyncio.Task[str | None]"
    began: float
    ended: float = math.inf

    def silent(self, now: float) -> float:
        """Seconds since the engine was asked, or has computed anything for anybody."""
        return now - max(self.began, self.signs.heard)


class Pings:
    """Asks the engines of the routing table."""

    def __init__(self, routes: RoutesFile, connections: Connections, *, silence: float = SILENCE) -> None:
        """`silence`: seconds in which an engine answers something, or it is called not ready."""
        self._routes = routes
        self._connections = connections
        self._silence = silence
        self._signs: dict[str, Signs] = {}
        self._probe: _Probe | None = None
        self._asking: set[asyncio.Task[str | None]] = set()

    def answered(self, socket: str, *, seconds: float) -> None:
        """The engine of this socket has just answered a request, and computed it for so long."""
        self._signs_of(socket).answered(seconds)

    async def figures(self) -> list[EngineFigures]:
        """What every engine tells of itself now; from those that do not answer at once no more than what is known.

        One that is on its way out is left out: it may be beside another one of the same version.
        """
        staying = [each for each in self._routes.read().engines if each.state is not EngineState.DRAINING]
        return list(await asyncio.gather(*map(self._figures, staying)))

    async def _figures(self, route: Route) -> EngineFigures:
        figures = EngineFigures(route.model, route.version, ready=False, restarts=route.restarts)
        if route.state is not EngineState.READY:
            return figures
        try:
            answer = await self._ping(route.socket, seconds=_FIGURES_TIMEOUT)
        except (OSError, TimeoutError, InferenceError):
            return figures
        batches = {int(size): int(count) for size, count in answer.get("batches", {}).items()}
        process = f"{route.socket} {route.pid}"
        return replace(figures, ready=True, waiting=int(answer["images"]), batches=batches, process=process)

    async def health(self, name: str, version: int) -> EngineHealth:
        """Whether the version's engine answers a real inference, in less than two seconds in any case.

        All who ask meanwhile share one ping, which is good for half a second. A ping goes before everything that waits,
        but behind the batch in hand: while the engine computes for others it counts as alive, for as long as its
        batches are known to take.
        """
        route = self._routes.read().engine(name, version)
        if route is None or route.state is not EngineState.READY:
            why = "no engine has been started" if route is None else route.reason or f"the engine is {route.state}"
            return EngineHealth(ready=False, model=name, version=version, reason=why)
        reason = await self._reason(self._current(route.socket))
        return EngineHealth(ready=reason is None, model=name, version=version, reason=reason)

    async def _reason(self, probe: _Probe) -> str | None:
        """Why the engine is not ready, as far as that is known in time."""
        until = time.monotonic() + self._silence
        while not probe.asking.done():
            now, heard = time.monotonic(), probe.signs.heard
            silent, patience = probe.silent(now), probe.signs.patience
            if silent < patience and now < until:
                await asyncio.wait({probe.asking}, timeout=min(patience - silent, until - now))
                continue
            if silent >= patience:
                await asyncio.wait({probe.asking}, timeout=_HEARING)
                if probe.signs.heard == heard and not probe.asking.done():
                    return f"the engine has not answered for {silent:.1f} s"
            if now >= until and not probe.asking.done():
                return None
        return probe.asking.result()

    async def close(self) -> None:
        for task in self._asking:
            task.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)

    def _current(self, socket: str) -> _Probe:
        """The ping that is under way to this engine, or was answered just now; else a new one."""
        now, probe = time.monotonic(), self._probe
        if probe is not None and probe.socket == socket and now - probe.ended < _HEALTH_AGE:
            return probe
        signs = self._signs_of(socket)
        asking = asyncio.create_task(self._look(socket, signs), name="health")
        self._probe = _Probe(socket, signs, asking, began=now)
        self._asking.add(asking)
        asking.add_done_callback(partial(self._ended, self._probe))
        return self._probe

    def _ended(self, probe: _Probe, asking: "asyncio.Task[str | None]") -> None:
        probe.ended = time.monotonic()
        self._asking.discard(asking)

    async def _look(self, socket: str, signs: Signs) -> str | None:
        began = time.monotonic()
        try:
            await self._ping(socket, seconds=_PING_TIMEOUT)
        except TimeoutError:
            if time.monotonic() - signs.heard < signs.patience:
                return None  # it computes for others
            return f"the engine has not answered for {_PING_TIMEOUT:g} s"
        except (OSError, InferenceError) as error:
            return f"the engine does not answer: {error}"
        signs.answered(time.monotonic() - began)
        return None

    async def _ping(self, socket: str, *, seconds: float) -> dict[str, Any]:
        """What an engine answers to a real inference. Raises InferenceError, OSError, TimeoutError."""
        async with asyncio.timeout(seconds):
            connection = await self._connections.open(socket)
            answer: dict[str, Any] = await connection.request("ping", {"timeout": seconds})
        raise_error(answer)
        return answer

    def _signs_of(self, socket: str) -> Signs:
        found = self._signs.get(socket)
        if found is None:
            known = {route.socket for route in self._routes.read().engines}
            self._signs = {each: signs for each, signs in self._signs.items() if each in known}
            found = self._signs[socket] = Signs(self._silence)
        return found
