"""Everything that lies in Redis, beside what the model says should."""

import json
from typing import Any

from ledger_model import ERROR

from jobs import keys
from jobs.model import HELD, TERMINAL, Job, Lane, Priority, State

DUMP = """
local found = {}
for _, key in ipairs(redis.call('KEYS', 'rn:*')) do
  local kind = redis.call('TYPE', key).ok
  if kind == 'hash' then found[key] = redis.call('HGETALL', key)
  elseif kind == 'zset' then found[key] = redis.call('ZRANGE', key, 0, -1)
  elseif kind == 'stream' then found[key] = redis.call('XRANGE', key, '-', '+')
  else found[key] = redis.call('GET', key) end
end
return cjson.encode(found)
"""


def expected_record(job):
    return {
        "kind": job.kind,
        "state": job.state,
        "priority": job.priority,
        "claim": job.claim,
        "crashes": job.crashes,
        "orders": job.orders,
        "retry_of": job.retry_of,
        "retried_as": job.retried_as,
        "since": str(job.since),
        "held": job.state in HELD,
        "counted": job.state in HELD,
        "ended": job.state in TERMINAL,
        "error": job.state is State.FAILED,
        "result": {"model": "m"} if job.state is State.SUCCEEDED else None,
    }


class Found:
    """Everything that lies in Redis."""

    def __init__(self, dump: dict[str, Any]) -> None:
        self.dump = dump

    def names(self, prefix: str) -> list[str]:
        return [key.split(":")[2] for key in self.dump if key.startswith(f"rn:{prefix}:") and key.count(":") == 2]

    def record(self, name: str) -> dict[str, Any]:
        flat = self.dump[keys.job(name)]
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        job = Job.model_validate(fields)
        taken = job.model_dump(include={"kind", "state", "priority", "claim", "crashes", "retry_of", "retried_as"})
        return {
            **taken,
            "orders": job.orders.model_dump(),
            "since": fields["crashes_since_checkpoint"],
            "held": job.claimed_at is not None,
            "counted": job.counted_at is not None,
            "ended": job.finished_at is not None,
            "error": job.error is not None and job.error.log in (ERROR.log, None),
            "result": job.result,
        }

    def events(self, name: str) -> list[tuple[str, Any]]:
        entries = [dict(zip(flat[::2], flat[1::2], strict=True)) for _, flat in self.dump[keys.events(name)]]
        return [(entry["type"], json.loads(entry["data"])) for entry in entries]

    def ordered(self, key: str) -> list[str]:
        return self.dump.get(key, [])

    def index(self, key: str) -> set[str]:
        members = self.ordered(key)
        assert len(members) == len(set(members))
        return set(members)

    def strings(self, prefix: str) -> dict[str, str]:
        start = f"rn:{prefix}:"
        return {key.removeprefix(start): value for key, value in self.dump.items() if key.startswith(start)}

    def unknown(self) -> set[str]:
        """Keys that belong to nothing: not one may be left by what was removed."""
        jobs = self.names("job")
        named = {keys.job(name) for name in jobs} | {keys.events(name) for name in jobs}
        named |= {keys.ALL, keys.LEASES, keys.UNARCHIVED, keys.ENDED, keys.DELIVERIES, keys.LAST_CREATED}
        named |= {keys.state(state) for state in State}
        named |= {keys.due(lane, priority) for lane in Lane for priority in Priority}
        run_out = ("rn:claim:", "rn:verb:", "rn:idempotency:")
        return {key for key in self.dump if key not in named and not key.startswith(run_out)}
