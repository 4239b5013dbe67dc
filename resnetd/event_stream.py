"""A job's history as it comes: one connection to its event stream."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import httpx

from resnetd.sse import lines_of, messages
from resnetd.transport import Json, problem_of, segment

_SILENCE_SECONDS = 60.0  # without a byte; the server sends a comment far more often


@dataclass(frozen=True)
class Event:
    """One entry of a job's history. `id` is `<milliseconds since 1970>-<n>`."""

    id: str
    type: str
    data: Json

    @property
    def at(self) -> datetime:
        """When it happened; `id` tells."""
        return datetime.fromtimestamp(int(self.id.partition("-")[0]) / 1000, UTC)


def tail(http: httpx.Client, job_id: str, last: str) -> Iterator[Event | None]:
    """None once the stream stands, then the events above `last` until it ends or breaks.

    Raises Problem for a refusal, httpx.TransportError where the connection fails.
    """
    headers = {"Accept": "text/event-stream"}
    if last:
        headers["Last-Event-ID"] = last
    timeout = httpx.Timeout(_SILENCE_SECONDS, connect=5.0)
    with http.stream("GET", f"/v1/jobs/{segment(job_id)}/events", headers=headers, timeout=timeout) as response:
        if not response.is_success:
            response.read()
            raise problem_of(response)
        yield None
        for message in messages(lines_of(response.iter_text()), last_id=last):
            if message.event == "end":
                return
            yield Event(id=message.id, type=message.event, data=json.loads(message.data))
