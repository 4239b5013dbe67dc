"""From the shared options to a client."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resnetd.client import Client


def connect(server: str, key: str | None) -> "Client":
    """A client of the server; the HTTP library is loaded here, so that `--help` need not wait for it."""
    from resnetd.client import Client  # noqa: PLC0415 - see above

    return Client(server if "://" in server else f"http://{server}", key)
