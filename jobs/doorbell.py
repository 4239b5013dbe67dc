"""The doorbell: a Celery message that says no more than «there may be work in this lane».

The ledger is the truth. A message that is lost, doubled, late or out of order costs latency and nothing else: whoever
hears a bell asks the ledger what is due, and the reconciler rings again for what nobody came for.
"""

import logging
from typing import Any

from celery import Celery
from celery.app.amqp import AMQP
from kombu import Connection
from kombu.entity import Exchange, Queue
from kombu.exceptions import OperationalError
from redis import RedisError

from jobs.model import Lane
from jobs.plans import TASK as PLAN_TASK
from jobs.redis import broker_url

log = logging.getLogger(__name__)

TASK = "resnetd.answer"
RECONNECT_SECONDS = 4.0
_KEY_PREFIX = "rn:celery:"


def queue(lane: Lane) -> str:
    return f"rn.{lane}"


def settings(redis_url: str) -> dict[str, Any]:
    """Celery's settings, each other than its default for a reason (see docs/decisions/0002-doorbell.md)."""
    return {
        "broker_url": broker_url(redis_url),
        "broker_transport_options": {
            "global_keyprefix": _KEY_PREFIX,
            "client_name": "resnetd-celery",
            # Early acknowledgement: this covers only the instant between taking a message and acknowledging it.
            "visibility_timeout": 300,
            "unacked_restore_interval": 10,
            "unacked_restore_throttle": 1,
            "socket_timeout": 10,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 10,
            "polling_interval": 1,
        },
        "broker_connection_retry": True,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,  # the default gives up after 100
        "broker_channel_error_retry": True,  # a full or read-only Redis answers with errors that pass
        "broker_pool_limit": 4,
        "broker_pool_acquire_timeout": 2,  # the default waits for ever, in the middle of a request
        "task_publish_retry": False,  # the reconciler rings again
        "task_acks_late": False,
        "task_reject_on_worker_lost": False,
        "worker_prefetch_multiplier": 1,
        "worker_disable_prefetch": True,  # else a bell waits in a busy process's pocket
        "worker_cancel_long_running_tasks_on_connection_loss": False,  # would end a training on a Redis blip
        "worker_enable_remote_control": False,
        "worker_send_task_events": False,
        "worker_proc_alive_timeout": 60,
        "worker_max_tasks_per_child": 50,
        "worker_hijack_root_logger": False,
        "task_ignore_result": True,
        "result_backend": None,
        "task_serializer": "json",
        "accept_content": ["json"],
        "task_create_missing_queues": False,
        "task_queues": [Queue(queue(lane), Exchange(queue(lane)), routing_key=queue(lane)) for lane in Lane],
        "task_default_queue": queue(Lane.DEVICE),
        "enable_utc": True,
    }


class _Connection(Connection):  # type: ignore[misc]  # kombu ships no types
    """Looks for Redis every few seconds, however long it has been away: kombu's own pauses grow to half a minute."""

    def ensure_connection(self, *args: Any, **options: Any) -> Connection:  # noqa: ANN401 - kombu's own options
        return super().ensure_connection(*args, **{"interval_max": RECONNECT_SECONDS, **options})


class _Amqp(AMQP):  # type: ignore[misc]  # Celery ships no types
    Connection = _Connection


class Doorbell:
    def __init__(self, redis_url: str) -> None:
        self.celery = Celery("resnetd", set_as_current=False, amqp=_Amqp)
        self.celery.conf.update(settings(redis_url))

    def ring(self, lane: Lane) -> bool:
        """Send one bell. False when the broker cannot be reached: the reconciler will ring again."""
        return self._send(TASK, lane.value, lane)

    def ask_for_plan(self, plan_id: str) -> bool:
        """Tell a worker of a question that is written down. False when the broker cannot be reached.

        In the CPU lane's queue: a training that goes on does not keep it waiting.
        """
        return self._send(PLAN_TASK, plan_id, Lane.CPU)

    def _send(self, task: str, argument: str, lane: Lane) -> bool:
        try:
            self.celery.send_task(task, args=[argument], queue=queue(lane), retry=False)
        except (OperationalError, RedisError, OSError) as error:
            log.warning("the doorbell did not ring", extra={"lane": lane.value, "reason": str(error)})
            return False
        return True

    def waiting(self, lane: Lane) -> int:
        """Bells that nobody has heard yet."""
        with self.celery.connection_for_read() as connection:
            channel: Any = connection.default_channel
            return int(channel.client.llen(queue(lane)))
