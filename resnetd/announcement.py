"""What `resnetd up` says once everything works together: which parts run, with what, and three requests to try."""

import json
import os
import shlex
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from store.layout import Layout
from store.loopback import is_loopback
from store.settings import Settings


def announcement(
    address: str, settings: Settings, layout: Layout, *, redis_server: str | None, parts: dict[str, Any]
) -> str:
    """`redis_server`: the program of the embedded Redis, where there is one. `parts`: as /readyz has them."""
    engine, device = _engine(layout, str(parts["engine"]["model"]), int(parts["engine"]["version"]))
    count = settings.http_workers
    lines = {
        "data": short(layout.root),
        "Redis": _redis(settings, layout, redis_server),
        "HTTP": f"{count} process{'es' if count > 1 else ''} on {address}, docs at {address}/docs",
        "engine": engine,
        "worker": f"one, computes on {device}{_yet(parts['worker']['reason'])}",
    }
    runs = "\n".join(f"  {name:<8}{told}" for name, told in lines.items())
    key = "" if is_loopback(settings.host) else '-H "Authorization: Bearer $RESNETD_KEY" '
    needs = ", with a key of `resnetd keys create` in RESNETD_KEY" if key else ""
    requests = "\n".join(
        f"  curl {key}{arguments}{shlex.quote(address + path)}"
        for arguments, path in (
            ("-T cat.jpg ", "/v1/classify"),
            ("-T images.zip ", "/v1/datasets?name=mine"),
            ("", "/v1/models"),
        )
    )
    return f"\nresnetd is ready at {address}\n\n{runs}\n\nTo try{needs}:\n\n{requests}\n\nStop with Ctrl-C.\n"


def _engine(layout: Layout, model: str, version: int) -> tuple[str, str]:
    """The engine that answered and what it computes on, from the fleet's routing table."""
    with suppress(OSError, ValueError):
        for each in json.loads(layout.routes.read_bytes())["engines"]:
            if (each["model"], each["version"], each["state"]) == (model, version, "ready"):
                return f"serves {model}@{version} on {each['device']}", str(each["device"])
    return f"serves {model}@{version}", "the same device"  # the table has just changed


def _yet(reason: str | None) -> str:
    return "" if reason is None else f"; not ready yet ({reason})"


def _redis(settings: Settings, layout: Layout, server: str | None) -> str:
    if server is not None:
        return f"embedded, {short(Path(server))} on {short(layout.redis_socket)}"
    url = urlsplit(settings.redis_url or "")
    return f"external, {url.scheme}://{url.netloc.rpartition('@')[2]}{url.path}"  # no password, wherever it stands


def short(path: Path) -> str:
    """As seen from here."""
    here = Path(os.getcwd())  # noqa: PTH109 - Path.cwd() is the same call
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
