"""From the shared options to a client."""

from typing import TYPE_CHECKING

from resnetd.commands import output
from resnetd.errors import Problem, Unreachable

if TYPE_CHECKING:
    from resnetd.client import Client


def connect(server: str, key: str | None) -> "Client":
    """A client of the server; the HTTP library is loaded here, so that `--help` need not wait for it."""
    from resnetd.client import Client  # noqa: PLC0415 - see above

    return Client(server if "://" in server else f"http://{server}", key, on_wait=_say)


def _say(failure: Problem | Unreachable) -> None:
    hint = "; `resnetd up` starts a server" if isinstance(failure, Unreachable) else ""
    output.note(f"{failure} - trying again for a while (Ctrl-C ends that){hint}")
