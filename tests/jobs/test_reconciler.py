"""The reconciler mends what differs between the ledger and the world."""

import os
import signal
import subprocess
import sys

import orjson
import pytest
from ledger_kit import ended, submit

from jobs import archive, keys, owner, reconciler
from jobs.doorbell import Doorbell
from jobs.ledger import Ledger
from jobs.model import Kind, Lane, State
from jobs.reconciler import reconcile
from jobs.redis import connect
from jobs.scripts import LONG_STREAM


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


def test_it_takes_a_late_lease_away_once_the_time_of_grace_is_over(ledger, layout, redis_url, monkeypatch):
    monkeypatch.setattr(reconciler, "LEASE_MS", 0)  # Redis started long ago
    job_id = ledger.submit(Kind.TRAIN, {}).job_id
    ledger.claim(Lane.DEVICE, owner=owner.this_process(), token="t")
    ledger.redis.zadd(keys.LEASES, {job_id: 1})
    reconcile(ledger, Doorbell(redis_url), layout)
    assert ledger.state(job_id) is State.RUNNING
    ledger.redis.hincrby(keys.job(job_id), "late_since", -reconciler.GRACE_MS)
    reconcile(ledger, Doorbell(redis_url), layout)
    assert ledger.state(job_id) is State.QUEUED


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


def test_a_live_jobs_long_stream_is_brought_to_disk_and_shortened(ledger, layout, redis_url):
    job_id = submit(ledger)
    held = ledger.claim(Lane.DEVICE, owner=owner.this_process(), token="t")
    for sequence in range(1, 12):
        ledger.emit(held, sequence, [("progress", {"step": step}) for step in range(1000)])
    reconcile(ledger, Doorbell(redis_url), layout)
    assert ledger.redis.xlen(keys.events(job_id)) == archive.KEPT
    seen, after, more = 0, "0-0", True
    while more:
        events, more = archive.history(ledger, layout, job_id, after, 3000)
        seen, after = seen + len(events), events[-1].id
    assert seen == 11_002


def test_a_long_stream_of_a_job_that_nobody_holds_is_shortened_too(ledger, layout, redis_url):
    job_id = submit(ledger)
    ledger.pause(job_id)
    with ledger.redis.pipeline() as pipe:
        for _ in range(LONG_STREAM - 10):
            pipe.xadd(keys.events(job_id), {"type": "checkpoint_requested", "data": "{}"})
        pipe.execute()
    reconcile(ledger, Doorbell(redis_url), layout)
    assert ledger.redis.xlen(keys.events(job_id)) == LONG_STREAM - 8
    for _ in range(9):
        ledger.checkpoint(job_id)
    assert ledger.long() == [job_id]
    reconcile(ledger, Doorbell(redis_url), layout)
    assert ledger.redis.xlen(keys.events(job_id)) <= archive.KEPT
    assert ledger.long() == []
    events, more = archive.history(ledger, layout, job_id, "0-0", 20_000)
    assert (len(events), more) == (LONG_STREAM + 1, False)


def test_a_job_that_is_deleted_is_among_the_long_ones_no_longer(ledger, layout, redis_url):
    job_id = submit(ledger)
    ledger.redis.zadd(keys.LONG, {job_id: 0})
    ledger.cancel(job_id)
    ledger.delete(job_id)
    assert ledger.long() == []


def test_it_sweeps_what_ended_before_the_retention(ledger, layout, redis_url):
    old, fresh = ended(ledger), ended(ledger)
    ledger.redis.zadd(keys.ENDED, {old: ledger.clock() - 11_000})
    reconcile(ledger, Doorbell(redis_url), layout, retention_seconds=10)
    assert [job.id for job in ledger.page(limit=9)[0]] == [fresh]


def test_a_full_disk_keeps_no_job_from_running(ledger, layout, redis_url):
    """Here a file lies where the jobs' folder should be: nothing can be written."""
    layout.jobs.rmdir()
    layout.jobs.write_text("")
    stuck = submit(ledger)
    ledger.cancel(stuck)
    machine = owner.this_process().partition(":")[0]
    waiting = ledger.submit(Kind.TRAIN, {}).job_id
    ledger.claim(Lane.DEVICE, owner=f"{machine}:999999999:1", token="t")
    old = ended(ledger)
    reconcile(ledger, Doorbell(redis_url), layout, retention_seconds=-1)
    assert ledger.state(waiting) is State.QUEUED
    assert {job.id for job in ledger.page(limit=9)[0]} == {stuck, waiting}
    assert old not in ledger.unarchived()


ROUND = """
import sys
from pathlib import Path
from jobs.doorbell import Doorbell
from jobs.ledger import Ledger
from jobs.reconciler import reconcile
from jobs.redis import connect
from store.layout import Layout
url, data = sys.argv[1:]
reconcile(Ledger(connect(url)), Doorbell(url), Layout(Path(data)))
"""


@pytest.mark.parametrize(
    "point",
    [
        "reconciler.expired",
        "reconciler.rung",
        "archive.appended",
        "archive.trimmed",
        "archive.recorded",
        "archive.marked",
    ],
)
def test_a_reconciler_killed_at_any_point_leaves_nothing_that_the_next_does_not_mend(ledger, layout, redis_url, point):
    done = submit(ledger)
    ledger.cancel(done)
    long = submit(ledger)
    held = ledger.claim(Lane.DEVICE, owner=owner.this_process(), token="long")
    for sequence in range(1, 12):
        ledger.emit(held, sequence, [("progress", {})] * 1000)
    crashed = submit(ledger, Kind.IMPORT)
    machine = owner.this_process().partition(":")[0]
    ledger.claim(Lane.CPU, owner=f"{machine}:999999999:1", token="dead")
    submit(ledger)
    # The ended job's file is written after the long one's: the second passing is the archive's.
    nth = 2 if point == "archive.appended" else 1
    environment = {**os.environ, "RESNETD_FAULT": f"{point}:{nth}:kill"}
    program = [sys.executable, "-c", ROUND, redis_url, str(layout.root)]
    assert subprocess.run(program, env=environment, check=False).returncode == -signal.SIGKILL
    doorbell = Doorbell(redis_url)
    reconcile(ledger, doorbell, layout)
    assert ledger.unarchived() == []
    assert archive.archived_job(layout, done).state is State.CANCELLED
    assert len(archive.archived_events(layout, done, after="0-0", limit=9)[0]) == 2
    assert ledger.redis.xlen(keys.events(long)) <= LONG_STREAM
    assert [event.type for event in ledger.events(crashed)[0]] == ["queued", "running", "queued"]
    assert doorbell.waiting(Lane.DEVICE) == 1
