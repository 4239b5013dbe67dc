"""What HTTP processes ask of the fleet over its socket, and what engines there are by its routing table."""

import asyncio
from pathlib import Path
from typing import Any

import orjson

from app.inference.routes import Route, RoutesFile
from store.layout import Layout


async def ask(socket: Path, request: dict[str, Any]) -> dict[str, Any]:
    """One line of JSON there, one back. Raises OSError or ValueError where the fleet is gone."""
    reader, writer = await asyncio.open_unix_connection(str(socket))
    try:
        writer.write(orjson.dumps(request) + b"\n")
        await writer.drain()
        reply: dict[str, Any] = orjson.loads(await reader.readline())
        return reply
    finally:
        writer.close()


class FleetClient:
    """The fleet of one data directory."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._routes = RoutesFile(layout.routes)

    def engines(self, model: str) -> list[Route]:
        """The engines of a model's versions; those that are on their way out too."""
        return [route for route in self._routes.read().engines if route.model == model]

    async def load(self, model: str, version: int) -> dict[str, Any]:
        """`{"state": "ready", …}` or `{"state": "failed", "reason"}`, once that is known. Raises as `ask`.

        Unlike what a request needs, it is loaded again where the fleet is started anew.
        """
        request = {"op": "ensure", "model": model, "version": version, "keep": True}
        return await ask(self._layout.fleet_socket, request)

    async def unload(self, model: str, version: int) -> dict[str, Any]:
        """`{"state": "unloaded"}` when its process has ended, or `{"state": "needed", "reason"}`. Raises as `ask`."""
        return await ask(self._layout.fleet_socket, {"op": "unload", "model": model, "version": version})
