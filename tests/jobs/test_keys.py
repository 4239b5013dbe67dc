"""The names of keys in Python and in Lua are the same."""

from jobs import keys
from jobs.model import Kind, Lane


def test_every_key_that_the_scripts_write_is_named_in_keys(ledger):
    job_id = ledger.submit(Kind.TRAIN, {}, idempotency=("scope", "digest")).job_id
    queued = set(ledger.redis.scan_iter("*"))
    ledger.claim(Lane.DEVICE, owner="o", token="t")
    running = set(ledger.redis.scan_iter("*"))
    ledger.cancel(job_id)
    ((job, _),) = ledger.leases()
    ledger.expire(job, owner_is_dead=True)
    ended = set(ledger.redis.scan_iter("*"))
    always = {keys.job(job_id), keys.events(job_id), keys.ALL, keys.LAST_CREATED, keys.idempotency("scope")}
    assert queued == always | {keys.state("queued"), keys.due(Lane.DEVICE)}
    assert running == always | {keys.state("running"), keys.LEASES, keys.claim_token("t")}
    assert ended == always | {keys.state("cancelled"), keys.UNARCHIVED, keys.claim_token("t")}
