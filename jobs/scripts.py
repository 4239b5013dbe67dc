"""The ledger's Lua scripts, loaded once for each Redis client."""

from functools import cache
from pathlib import Path

from redis import Redis
from redis.commands.core import Script

_FOLDER = Path(__file__).parent / "lua"
NAMES = (
    "submit",
    "retry",
    "cancel",
    "pause",
    "resume",
    "finish",
    "checkpoint",
    "patch",
    "delete",
    "claim",
    "renew",
    "orders",
    "emit",
    "publishing",
    "settle",
    "release",
    "expire",
    "positions",
    "archived",
    "trim",
    "sweep",
)


@cache
def source(name: str) -> str:
    return (_FOLDER / "prelude.lua").read_text() + (_FOLDER / f"{name}.lua").read_text()


def register(redis: Redis) -> dict[str, Script]:
    """Each script as a callable that sends its digest, and its source only when the server does not know it."""
    return {name: redis.register_script(source(name)) for name in NAMES}
