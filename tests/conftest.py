"""What every room's tests share: a real Redis, a ledger in it, a data directory."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from last_line import LastLine
from redis import Redis
from running import REDIS_ADMIN, redis_admin_url, wait_for_redis

from jobs.ledger import Ledger
from jobs.redis import connect
from resnetd import embedded_redis
from store import redis_account
from store.layout import Layout


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        # One of several processes with tests, which share the cores: threads that wait for each other would crawl.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    else:
        config.pluginmanager.register(LastLine())


@pytest.fixture(scope="session", autouse=True)
def sockets_of_this_session() -> Iterator[None]:
    """Data directories with long paths have their sockets elsewhere (`Layout.run`): here, so that none stays behind."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="resnetd-test-") as folder:
        patch.setenv("TMPDIR", folder)
        patch.setenv("RESNETD_RUNTIME", "eager")  # engines of tests measure no runtimes, but where a test asks for it
        patch.setattr(tempfile, "tempdir", None)
        yield


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Layout]:
    """A Redis as `resnetd up` runs it, for the session, and an administrator beside resnetd's own user."""
    layout = Layout(tmp_path_factory.mktemp("redis")).create()
    process = subprocess.Popen([*embedded_redis.command(layout), *REDIS_ADMIN])
    wait_for_redis(process, layout)
    yield layout
    process.terminate()
    process.wait()


@pytest.fixture
def redis(redis_server: Layout) -> Iterator[Redis]:
    """A client of the session's Redis, empty, that may do everything: look around, empty, break."""
    client = connect(redis_admin_url(redis_server))
    client.flushall()
    yield client
    client.close()


@pytest.fixture
def redis_url(redis_server: Layout, redis: Redis) -> str:  # emptied by `redis`
    """The session's Redis, empty, as resnetd's own user reaches it."""
    return redis_account.url(redis_server)


@pytest.fixture
def ledger(redis_url: str) -> Iterator[Ledger]:
    client = connect(redis_url)
    yield Ledger(client)
    client.close()


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "data").create()
