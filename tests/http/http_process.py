"""`python -m app` as a process of its own."""

import contextlib
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from running import environment

from store.layout import Layout


def http_environment(layout: Layout, redis_url: str, **more: str) -> dict[str, str]:
    return environment(RESNETD_DATA=str(layout.root), REDIS_URL=redis_url, **more)


@contextlib.contextmanager
def http_process(
    layout: Layout, redis_url: str, *, listener: socket.socket | None = None, log: Path | None = None, **more: str
) -> Iterator[tuple["subprocess.Popen[bytes]", str]]:
    """The process and its address, where whoever connects waits until it is up.

    Its socket stays open when it leaves, as under `resnetd up`. `log` gets its standard error, `more` are variables.
    """
    with contextlib.ExitStack() as stack:
        if listener is None:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        fd = listener.fileno()
        started = subprocess.Popen(
            [sys.executable, "-m", "app", "--fd", str(fd)],
            env=http_environment(layout, redis_url, **more),
            pass_fds=[fd],
            stderr=stack.enter_context(log.open("wb")) if log else None,
        )
        try:
            yield started, f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            started.kill()
            started.wait()
