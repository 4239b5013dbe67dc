"""The socket that the HTTP processes serve on: bound once, by their parent."""

import socket

from resnetd.errors import CannotStart
from store.keys import list_keys
from store.layout import Layout
from store.loopback import is_loopback
from store.settings import Settings


def listen(settings: Settings, layout: Layout) -> socket.socket:
    """Bind here and hand the socket down: while an HTTP process starts again, connections wait instead of failing.

    Raises CannotStart.
    """
    if not is_loopback(settings.host) and not list_keys(layout):
        raise CannotStart(
            f"{settings.host} can be reached from other machines, and there is no key yet. "
            "Create one with `resnetd keys create --scope admin`, or listen on 127.0.0.1."
        )
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # Connections inherit it. uvicorn forgets an inherited socket's protocol, and Nagle's algorithm would stay on: the
    # body of each answer would wait 40 ms for the client's delayed acknowledgement of its head.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        where = f"{settings.host}:{settings.port}"
        message = f"Cannot listen on {where}: {error.strerror}. Set RESNETD_PORT or RESNETD_HOST."
        raise CannotStart(message) from error
    listener.listen(2048)
    return listener


def address_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
