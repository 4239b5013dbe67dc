"""The names of keys in Python and in Lua are the same."""

from jobs import keys
from jobs.model import Kind, Lane, Priority, State, Webhook


def test_every_key_that_the_scripts_write_is_named_in_keys(ledger, redis):
    webhook = Webhook(url="https://example.org", events=(State.CANCELLED,))
    job_id = ledger.submit(Kind.TRAIN, {}, idempotency=("scope", "digest"), webhook=webhook).job_id
    queued = set(redis.scan_iter("*"))
    ledger.claim(Lane.DEVICE, owner="o", token="t")
    running = set(redis.scan_iter("*"))
    ledger.cancel(job_id, token="c")
    ((job, _),) = ledger.leases()
    ledger.expire(job, owner_is_dead=True)
    ended = set(redis.scan_iter("*"))
    ledger.delete(job_id, token="d")
    deleted = set(redis.scan_iter("*"))
    always = {keys.job(job_id), keys.events(job_id), keys.ALL, keys.LAST_CREATED, keys.idempotency("scope")}
    cancel, delete = keys.verb_token("cancel", job_id, "c"), keys.verb_token("delete", job_id, "d")
    assert queued == always | {keys.state("queued"), keys.due(Lane.DEVICE)}
    assert running == always | {keys.state("running"), keys.LEASES, keys.claim_token("t")}
    assert ended == always | {keys.state("cancelled"), keys.UNARCHIVED, keys.ENDED, keys.DELIVERIES, cancel}
    assert deleted == {keys.LAST_CREATED, keys.idempotency("scope"), cancel, delete}
    assert all(0 < redis.pttl(key) <= 600_000 for key in (cancel, delete))


def test_each_priority_has_its_queue_and_the_normal_one_is_the_lanes_own(ledger):
    for priority in Priority:
        ledger.submit(Kind.IMPORT, {}, priority=priority)
    assert keys.due(Lane.CPU) == "rn:due:cpu"
    assert all(ledger.redis.zcard(keys.due(Lane.CPU, priority)) == 1 for priority in Priority)
