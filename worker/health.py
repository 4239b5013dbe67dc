"""`python -m worker.health`: a container's health check. Exit 0 where a worker of this container listens, else 1.

A worker that listens waits at its queues with BRPOP. Redis knows the clients of all workers, wherever they run: those
that come from the address that this process comes from are of this container.
"""

import sys
from uuid import uuid4

from redis import Redis, RedisError

from jobs.redis import url
from store.layout import Layout
from store.settings import Settings

PATIENCE_SECONDS = 3.0


def listens(redis_url: str) -> bool:
    """Whether a worker of this container waits at a queue. Raises RedisError."""
    own_name = f"health-{uuid4().hex}"
    with Redis.from_url(
        redis_url, decode_responses=True, client_name=own_name, socket_timeout=PATIENCE_SECONDS
    ) as redis:
        return one_waits_beside(own_name, redis.client_list())


def one_waits_beside(own_name: str, clients: list[dict[str, str]]) -> bool:
    """Whether one of Redis's clients waits at a queue and comes from where the client of this name comes from."""
    here = {_host(each) for each in clients if each["name"] == own_name}
    return any(each["cmd"] == "brpop" and _host(each) in here for each in clients)


def _host(client: dict[str, str]) -> str:
    return client["addr"].rpartition(":")[0]


def main() -> int | str:
    """The exit status, or why it is 1."""
    settings = Settings()
    try:
        heard = listens(url(settings, Layout(settings.data)))
    except RedisError as error:
        return f"Redis does not answer: {error}"
    return 0 if heard else "No worker of this container waits at a queue."


if __name__ == "__main__":
    sys.exit(main())
