import socket
from pathlib import Path

import pytest

from resnetd.errors import CannotStart
from resnetd.listener import address_of, listen
from store.layout import Layout
from store.settings import Settings


def test_connections_send_at_once_what_is_written(tmp_path: Path) -> None:
    with (
        listen(Settings(port=0), Layout(tmp_path).create()) as listener,
        socket.create_connection(listener.getsockname()),
        listener.accept()[0] as connection,
    ):
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_taken_port_says_what_to_set(tmp_path: Path) -> None:
    layout = Layout(tmp_path).create()
    with listen(Settings(port=0), layout) as listener:
        port = listener.getsockname()[1]
        assert address_of(listener) == f"http://127.0.0.1:{port}"
        with pytest.raises(CannotStart, match="RESNETD_PORT"):
            listen(Settings(port=port), layout)


def test_an_open_address_needs_a_key(tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match="resnetd keys create"):
        listen(Settings(host="0.0.0.0", port=0), Layout(tmp_path).create())
