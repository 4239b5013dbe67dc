"""What every room's tests share: a real Redis."""

import subprocess
import time
from collections.abc import Iterator

import pytest
from redis import Redis, RedisError

from jobs.redis import connect
from resnetd import embedded_redis
from store.layout import Layout


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis as `resnetd up` runs it, for the session; its URL."""
    layout = Layout(tmp_path_factory.mktemp("redis")).create()
    process = subprocess.Popen(embedded_redis.command(layout))
    url = f"unix://{layout.redis_socket}"
    client = connect(url)
    until = time.monotonic() + 10
    while True:
        try:
            client.ping()
            break
        except RedisError:
            assert process.poll() is None, "redis-server did not start"
            assert time.monotonic() < until, "redis-server does not answer"
    client.close()
    yield url
    process.terminate()
    process.wait()


@pytest.fixture
def redis_url(redis_server: str) -> Iterator[str]:
    """The session's Redis, empty."""
    client = connect(redis_server)
    client.flushall()
    client.close()
    yield redis_server


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    client = connect(redis_url)
    yield client
    client.close()
