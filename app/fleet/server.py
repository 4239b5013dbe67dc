"""fleet.sock: one line of JSON in, one out, as often as the client likes."""

import asyncio
import logging
from pathlib import Path
from typing import Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from app.fleet.fleet import Fleet, Needed, NoRoom
from app.inference.routes import EngineState
from models.catalog import ModelNotFound

log = logging.getLogger(__name__)


class Asked(BaseModel):
    """Load a model version and tell when it is ready, or unload it and tell when it is gone.

    `keep`: it is to be loaded when this fleet has ended and another one starts, too.
    """

    model_config = ConfigDict(frozen=True)

    op: Literal["ensure", "unload"]
    model: str
    version: int
    keep: bool = False


async def listen(fleet: Fleet, socket: Path) -> asyncio.Server:
    """Answer `ensure` with `{"state": "ready", "socket": …}` or `{"state": "failed", "reason": …}`, and `unload` with
    `{"state": "unloaded"}` or `{"state": "needed", "reason": …}`.
    """

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                writer.write(orjson.dumps(await _answer(fleet, line)) + b"\n")
                await writer.drain()
        except (ConnectionError, ValueError):  # gone, or a line longer than any of ours
            pass
        except asyncio.CancelledError:  # the loop ends; asyncio's streams would log it as an error
            pass
        finally:
            writer.close()

    return await asyncio.start_unix_server(connection, socket)


async def _answer(fleet: Fleet, line: bytes) -> dict[str, Any]:
    try:
        asked = Asked.model_validate_json(line)
        if asked.op == "unload":
            await fleet.unload(asked.model, asked.version)
            return {"state": "unloaded", "reason": None}
        route = await fleet.ensure(asked.model, asked.version, keep=asked.keep)
    except Needed as error:
        return {"state": "needed", "reason": str(error)}
    except (ValidationError, ModelNotFound, NoRoom) as error:
        return {"state": EngineState.FAILED, "reason": str(error)}
    except OSError as error:  # the disk, or no file descriptor is left: whoever asks is told, and not cut off
        log.exception("an engine that is asked for cannot be looked for")
        return {"state": EngineState.FAILED, "reason": f"its files cannot be read: {error.strerror or error}"}
    return {name: getattr(route, name) for name in ("state", "socket", "reason", "device", "runtime")}
