"""The reconciler mends what differs between the ledger and the world."""

import orjson

from jobs import keys, owner
from jobs.doorbell import Doorbell
from jobs.ledger import Ledger
from jobs.model import Kind, Lane, State
from jobs.reconciler import reconcile
from jobs.redis import connect


def test_it_rings_for_what_is_due_and_not_twice(ledger, layout, redis_url):
    doorbell = Doorbell(redis_url)
    ledger.submit(Kind.TRAIN, {})
    for _ in range(3):
        reconcile(ledger, doorbell, layout)
    assert doorbell.waiting(Lane.DEVICE) == 1
    assert doorbell.waiting(Lane.CPU) == 0


def test_it_frees_the_jobs_of_a_dead_owner_at_once(ledger, layout, redis_url):
    machine = owner.this_process().partition(":")[0]
    job_id = ledger.submit(Kind.TRAIN, {}).job_id
    ledger.claim(Lane.DEVICE, owner=f"{machine}:999999999:1", token="t")
    reconcile(ledger, Doorbell(redis_url), layout)
    assert ledger.state(job_id) is State.QUEUED
    assert ledger.get(job_id).crashes == 1


def test_it_leaves_a_late_lease_alone_just_after_redis_started(ledger, layout, redis_url):
    """After an outage every lease is past, while the workers live and are about to renew."""
    job_id = ledger.submit(Kind.TRAIN, {}).job_id
    ledger.claim(Lane.DEVICE, owner=owner.this_process(), token="t")
    ledger.redis.zadd(keys.LEASES, {job_id: 1})
    reconcile(ledger, Doorbell(redis_url), layout)
    assert ledger.state(job_id) is State.RUNNING


def test_it_writes_what_has_ended_beside_its_artifacts(ledger, layout, redis_url):
    job_id = ledger.submit(Kind.TRAIN, {"a": 1}).job_id
    ledger.cancel(job_id)
    reconcile(ledger, Doorbell(redis_url), layout)
    record = orjson.loads((layout.job(job_id) / "record.json").read_bytes())
    assert (record["state"], record["spec"]) == ("cancelled", {"a": 1})
    lines = (layout.job(job_id) / "events.jsonl").read_bytes().splitlines()
    assert [orjson.loads(line)["type"] for line in lines] == ["queued", "cancelled"]
    assert ledger.unarchived() == []


def test_redis_away_is_survived(ledger, layout, tmp_path):
    nowhere = f"unix://{tmp_path}/none.sock"
    reconcile(Ledger(connect(nowhere)), Doorbell(nowhere), layout)
