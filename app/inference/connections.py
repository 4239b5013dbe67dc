"""Connections to engines, one for each; an engine that is not there is asked for."""

import asyncio
import math
from pathlib import Path

from app.inference.connection import Connection
from app.inference.errors import EngineStarting, EngineUnavailable
from app.inference.fleet import ask
from app.inference.routes import EngineState, RoutesFile

_POLL = 0.05  # seconds between looks at an engine that is on its way
_FLEET_GRACE = 5.0  # seconds in which a fleet or an engine that died is back, or something is wrong


class Connections:
    """Those of one HTTP process. Needs a running event loop only when called."""

    def __init__(self, routes: RoutesFile, fleet_socket: Path) -> None:
        self._routes = routes
        self._fleet_socket = fleet_socket
        self._open: dict[str, Connection] = {}
        self._opening = asyncio.Lock()

    async def ready(self, name: str, version: int, deadline: float, *, lost: str | None) -> Connection:
        """A connection to the version's engine, which is started where there is none."""
        connection = self._here(name, version)
        if connection is not None and connection.socket != lost:
            return connection
        try:
            async with asyncio.timeout_at(deadline):
                return await self._connect_or_start(name, version, lost=lost)
        except TimeoutError as error:
            raise EngineStarting(f"{name}@{version} is still being loaded") from error

    async def at_once(self, name: str, version: int) -> Connection:
        """A connection to the version's engine where that is there now. Raises EngineUnavailable."""
        route = self._routes.read().engine(name, version)
        if route is None or route.state is not EngineState.READY:
            raise EngineUnavailable(f"{name}@{version} is not ready")
        try:
            return await self.open(route.socket)
        except OSError as error:
            raise EngineUnavailable(f"{name}@{version} does not answer: {error}") from error

    def _here(self, name: str, version: int) -> Connection | None:
        """The connection to the version's engine, where both are there."""
        route = self._routes.read().engine(name, version)
        if route is None or route.state is not EngineState.READY:
            return None
        found = self._open.get(route.socket)
        return None if found is None or found.closed else found

    async def _connect_or_start(self, name: str, version: int, *, lost: str | None) -> Connection:
        """`lost`: the socket of an engine that has just died; a dying process may still accept for a moment."""
        clock = asyncio.get_running_loop().time
        grace_over = clock() + _FLEET_GRACE
        given_up = math.inf  # when the fleet, which has just not answered, has been silent for too long
        while True:
            route = self._routes.read().engine(name, version)
            socket = route.socket if route is not None and route.state is EngineState.READY else None
            try:
                if socket is not None and (socket != lost or clock() > grace_over):
                    return await self.open(socket)
            except OSError:
                pass  # it died, and the fleet has not said so yet
            try:
                reply = await ask(self._fleet_socket, {"op": "ensure", "model": name, "version": version})
                if reply["state"] == EngineState.FAILED:
                    raise EngineUnavailable(f"{name}@{version} cannot be served: {reply['reason']}")
                given_up = math.inf
            except (OSError, ValueError) as error:
                given_up = min(given_up, clock() + _FLEET_GRACE)
                if clock() > given_up:
                    raise EngineUnavailable("the process that starts engines does not answer") from error
            await asyncio.sleep(_POLL)

    async def open(self, socket: str) -> Connection:
        """The connection to an engine's socket. Raises OSError."""
        async with self._opening:
            found = self._open.get(socket)
            if found is None or found.closed:
                self._open = {path: each for path, each in self._open.items() if not each.closed}
                found = self._open[socket] = await Connection.open(socket)
            return found

    async def close(self) -> None:
        await asyncio.gather(*(each.close() for each in self._open.values()))
        self._open.clear()
