"""Clients of the ledger's Redis, each explicit about how long it waits and how often it tries again."""

from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.backoff import NoBackoff
from redis.retry import Retry

from store import redis_account
from store.layout import Layout
from store.settings import Settings


def url(settings: Settings, layout: Layout) -> str:
    """Where the ledger is: `REDIS_URL`, else the embedded Redis's socket in the data directory, with its password."""
    return settings.redis_url or redis_account.url(layout)


def broker_url(redis_url: str) -> str:
    """The same server for Celery, in logical database 1, so that its keys and ours never meet."""
    if redis_url.startswith("unix://"):
        return f"redis+socket://{redis_url.removeprefix('unix://').split('?')[0]}?virtual_host=1"
    base, _, query = redis_url.partition("?")
    scheme, _, rest = base.partition("://")
    return f"{scheme}://{rest.split('/')[0]}/1" + (f"?{query}" if query else "")


def connect(redis_url: str) -> Redis:
    """For short commands and scripts. One blind retry: every script of ours may run twice unharmed."""
    return Redis.from_url(
        redis_url,
        decode_responses=True,
        socket_timeout=2.0,
        socket_connect_timeout=1.0,
        retry=Retry(NoBackoff(), 1),
        health_check_interval=10,
        client_name="resnetd",
    )


def connect_async(redis_url: str, *, block: float) -> AsyncRedis:
    """For tailing streams: reads may block `block` seconds, so the socket waits longer than that."""
    return AsyncRedis.from_url(
        redis_url,
        decode_responses=True,
        socket_timeout=block + 5.0,
        socket_connect_timeout=1.0,
        health_check_interval=10,
        client_name="resnetd-tail",
    )
