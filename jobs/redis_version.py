"""Whether a server is old enough to have CVE-2025-49844: a script can leave Lua's sandbox and run code there."""

import re
from collections.abc import Mapping
from typing import Any

# The first release of each line without the flaw; a line that is not named and older than the newest has none.
_REDIS = {(6, 2): 20, (7, 2): 11, (7, 4): 6, (8, 0): 4, (8, 2): 2}
_VALKEY = {(7, 2): 11, (8, 0): 6, (8, 1): 4}


def warning(info: Mapping[str, Any]) -> str | None:
    """What to tell about a server whose `INFO server` says `info`, or None."""
    name = "Valkey" if "valkey_version" in info else "Redis"
    said = str(info.get("valkey_version") or info.get("redis_version") or "")
    if not _is_old(said, _VALKEY if name == "Valkey" else _REDIS):
        return None
    fixed = ", ".join(f"{major}.{minor}.{patch}" for (major, minor), patch in sorted(_REDIS.items()))
    return (
        f"{name} {said} is older than the releases that close CVE-2025-49844 (Redis {fixed}): whoever may load "
        "scripts can run code on the server. A distribution's package may have the fix under this older number; "
        "its changelog says so."
    )


def _is_old(version: str, fixed: Mapping[tuple[int, int], int]) -> bool:
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    if found is None:
        return False
    major, minor, patch = map(int, found.groups())
    if (major, minor) in fixed:
        return patch < fixed[major, minor]
    return (major, minor) < max(fixed)
