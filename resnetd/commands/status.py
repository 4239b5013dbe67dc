"""`resnetd status`: does it classify, do jobs run, and what is missing?"""

from typing import Any

import typer

from resnetd.commands import output
from resnetd.commands.connection import connect
from resnetd.commands.options import DEFAULT_SERVER, AsJson, Key, Server


def status(*, server: Server = DEFAULT_SERVER, key: Key = None, as_json: AsJson = False) -> None:
    """Whether a server classifies, and which of its parts are not ready. Ends with status 1 where it does not."""
    with connect(server, key) as client:
        found = client.readiness()
    if as_json:
        output.as_json(found)
    else:
        parts = {name: _told(part) for name, part in found["parts"].items()}
        output.fields({"status": found["status"], "not ready": ", ".join(found["not_ready"]), **parts})
    if found["status"] == "not_ready":
        raise typer.Exit(1)


def _told(part: dict[str, Any]) -> str:
    if not part["ready"]:
        return f"not ready: {part['reason']}"
    return f"ready ({part['model']}@{part['version']})" if part.get("model") else "ready"
