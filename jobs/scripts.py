"""The ledger's Lua scripts, loaded once for each Redis client."""

from functools import cache
from pathlib import Path

from redis import Redis
from redis.commands.core import Script

LONG_STREAM = 10_000  # events of a job from which on all but the newest are to go to disk
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
    parts = (f"local LONG = {LONG_STREAM}\n", *((_FOLDER / f"{each}.lua").read_text() for each in ("prelude", name)))
    return "".join(parts)


def register(redis: Redis) -> dict[str, Script]:
    """Each script as a callable that sends its digest, and its source only when the server does not know it."""
    return {name: redis.register_script(source(name)) for name in NAMES}
