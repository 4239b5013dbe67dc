"""What every room's tests share: a real Redis, a ledger in it, a data directory."""

import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis, RedisError

from jobs.ledger import Ledger
from jobs.redis import connect
from resnetd import embedded_redis
from store.layout import Layout


@pytest.fixture(scope="session", autouse=True)
def sockets_of_this_session() -> Iterator[None]:
    """Data directories with long paths have their sockets elsewhere (`Layout.run`): here, so that none stays behind."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="resnetd-test-") as folder:
        patch.setenv("TMPDIR", folder)
        patch.setattr(tempfile, "tempdir", None)
        yield


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
def redis_url(redis_server: str) -> str:
    """The session's Redis, empty."""
    client = connect(redis_server)
    client.flushall()
    client.close()
    return redis_server


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    client = connect(redis_url)
    yield client
    client.close()


@pytest.fixture
def ledger(redis: Redis) -> Ledger:
    return Ledger(redis)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "data").create()
