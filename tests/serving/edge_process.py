"""A real HTTP edge over a real fleet: what a client of either protocol meets."""

import contextlib
import socket
import threading
from collections.abc import Iterator

import uvicorn
from serving_toys import FleetProcess

from app.main import create_app
from app.protocol import HttpProtocol
from app.state import State


@contextlib.contextmanager
def edge_over(fleet: FleetProcess, redis_url: str) -> Iterator[tuple[str, State]]:
    """Its address (host:port) and what it holds, while the block lasts."""
    settings = fleet.settings.model_copy(update={"redis_url": redis_url, "max_image_bytes": 100_000})
    app = create_app(settings)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(128)
    config = uvicorn.Config(app, http=HttpProtocol, ws="none", lifespan="on", log_config=None, access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}", app.state.edge
    finally:
        app.state.edge.jobs.feeds.close()
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()
