"""The embedded Redis: who gets in, what he may do there, and what outlives a kill."""

import contextlib
import re
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from redis import AuthenticationError, Redis, RedisError
from redis.exceptions import NoPermissionError

from jobs.doorbell import Doorbell
from jobs.ledger import Ledger
from jobs.model import Kind, Lane, State
from jobs.redis import broker_url, connect, url
from jobs.redis_version import warning
from resnetd import embedded_redis
from store import redis_account
from store.layout import Layout
from store.settings import Settings

LUA = Path(__file__).resolve().parents[2] / "jobs" / "lua"


@contextlib.contextmanager
def running(layout, command):
    process = subprocess.Popen(command)
    try:
        with Redis(unix_socket_path=str(layout.redis_socket)) as client:
            while True:
                try:
                    client.ping()
                except AuthenticationError:
                    break
                except RedisError:
                    assert process.poll() is None
                    time.sleep(0.01)
                else:
                    break
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The data directory of one server for all tests that leave it as it was."""
    layout = Layout(tmp_path_factory.mktemp("embedded")).create()
    with running(layout, embedded_redis.command(layout)):
        yield layout


@pytest.fixture
def client(server):
    with contextlib.closing(connect(redis_account.url(server))) as connected:
        yield connected


def test_nobody_gets_in_without_the_password(client, server):
    socket = server.redis_socket
    for stranger in (f"unix://{socket}", f"unix://resnetd:wrong@{socket}", f"unix://default:@{socket}"):
        with Redis.from_url(stranger) as redis, pytest.raises(AuthenticationError):
            redis.ping()
    assert client.ping()


def test_the_password_is_a_file_that_only_its_owner_reads_and_stands_nowhere_else(server):
    layout, path = server, server.redis / "password"
    assert re.fullmatch("[0-9a-f]{64}", path.read_text())
    assert (path.stat().st_mode & 0o777, layout.redis.stat().st_mode & 0o777) == (0o600, 0o700)
    secret = path.read_text()
    others = [other for other in layout.root.rglob("*") if other.is_file() and other != path]
    assert [other for other in others if secret.encode() in other.read_bytes()] == []
    assert layout.redis / "redis.conf" in others


def test_of_many_who_come_first_at_once_one_makes_the_password(tmp_path):
    layout = Layout(tmp_path / "data")
    with ThreadPoolExecutor(16) as pool:
        assert len(set(pool.map(lambda _: redis_account.password(layout), range(64)))) == 1
    assert [path.name for path in layout.redis.iterdir()] == ["password"]


@pytest.mark.parametrize(
    "words",
    [
        "FLUSHALL", "FLUSHDB", "KEYS *", "SCAN 0", "CONFIG GET dir", "CONFIG SET dir /", "SHUTDOWN",
        "SAVE", "BGREWRITEAOF", "REPLICAOF 127.0.0.1 1", "MODULE LIST", "ACL LIST", "MONITOR", "SCRIPT FLUSH",
        "SCRIPT KILL", "CLIENT KILL TYPE normal", "CLIENT PAUSE 1", "MIGRATE 127.0.0.1 1 rn:x 0 1", "DUMP rn:x",
        "RESTORE rn:x 0 x", "RENAME rn:x rn:y", "SWAPDB 0 1", "PUBLISH rn:x 1", "SUBSCRIBE rn:x", "EVAL return 0",
    ],
)  # fmt: skip
def test_resnetds_user_may_not(client, words):
    with pytest.raises(NoPermissionError):
        client.execute_command(*words.split())


def test_neither_a_command_nor_a_script_reaches_other_keys(client):
    with pytest.raises(NoPermissionError):
        client.get("other")
    for body in ("return redis.call('GET', 'other')", "return redis.call('FLUSHALL')"):
        with pytest.raises(RedisError, match="user executing the script"):
            client.evalsha(client.script_load(body), 0)


def test_every_command_of_the_scripts_is_allowed():
    called = {
        name.lower() for path in LUA.glob("*.lua") for name in re.findall(r"redis\.call\('(\w+)'", path.read_text())
    }
    allowed = {each for line in embedded_redis.COMMANDS for each in line.split()}
    assert len(called) > 10
    assert called <= allowed


def test_the_server_replays_its_file_as_a_user_with_all_rights_whom_nobody_can_be(server):
    """Redis 7 and newer; see NOBODY. With an older one the next tests pass either way, so this looks at the rights."""
    assert "user default off resetpass ~* &* +@all" in (server.redis / "redis.conf").read_text().splitlines()


def test_scripts_and_bells_go_on_after_a_kill_and_nothing_acknowledged_is_lost(layout):
    command, place = embedded_redis.command(layout), redis_account.url(layout)
    ledger, bell = Ledger(connect(place)), Doorbell(place)
    with running(layout, command):
        first = ledger.submit(Kind.TRAIN, {}).job_id
        assert bell.ring(Lane.DEVICE)
    with running(layout, command):
        assert ledger.get(first).state is State.QUEUED
        ledger.cancel(ledger.submit(Kind.TRAIN, {}).job_id)  # the server has forgotten every script
        assert bell.waiting(Lane.DEVICE) == 1
    ledger.redis.close()


def test_a_data_directory_from_before_the_password_keeps_its_jobs(layout):
    command = embedded_redis.command(layout)
    config = Path(command[1])
    config.write_text("".join(line for line in config.read_text().splitlines(True) if not line.startswith("user ")))
    (layout.redis / "password").unlink()
    with running(layout, command), contextlib.closing(connect(f"unix://{layout.redis_socket}")) as client:
        job_id = Ledger(client).submit(Kind.TRAIN, {}).job_id
    with (
        running(layout, embedded_redis.command(layout)),
        contextlib.closing(connect(url(Settings(data=layout.root, redis_url=None), layout))) as client,
    ):
        assert Ledger(client).get(job_id).state is State.QUEUED


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("unix:///run/r.sock", "redis+socket:///run/r.sock?virtual_host=1"),
        ("unix://u:p%2F@/run/r.sock?db=0", "redis+socket://u:p%2F@/run/r.sock?virtual_host=1"),
        ("redis://u:p@r:6379/0", "redis://u:p@r:6379/1"),
        ("rediss://:p@r:6379?ssl_cert_reqs=required", "rediss://:p@r:6379/1?ssl_cert_reqs=required"),
    ],
)
def test_celery_uses_database_1_of_the_same_server_as_the_same_user(given, expected):
    assert broker_url(given) == expected


@pytest.mark.parametrize("version", ["6.2.14", "6.2.19", "7.0.15", "7.2.10", "7.4.5", "8.0.3", "8.2.1", "2.8.0"])
def test_a_server_with_the_flaw_in_luas_sandbox_is_told_of(version):
    told = warning({"redis_version": version})
    assert told is not None
    assert version in told
    assert "package" in told  # a distribution's number says less than it seems to


@pytest.mark.parametrize("version", ["6.2.20", "7.2.11", "7.4.6", "8.0.4", "8.2.2", "8.4.0", "9.0.0", "8.10.0"])
def test_a_server_without_it_is_not(version):
    assert warning({"redis_version": version}) is None


def test_valkey_is_judged_by_its_own_number():
    assert warning({"redis_version": "7.2.4", "valkey_version": "8.1.4"}) is None
    assert "Valkey 8.1.3" in str(warning({"redis_version": "7.2.4", "valkey_version": "8.1.3"}))
    assert warning({"redis_version": "7.2.4", "valkey_version": "9.0.0"}) is None
