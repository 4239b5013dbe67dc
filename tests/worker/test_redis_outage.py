"""A worker whose Redis is killed or does not answer takes up new work by itself, and soon."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from redis import RedisError
from running import REDIS_ADMIN, redis_admin_url
from toy_claims import ended
from waiting import wait_for

from jobs.doorbell import Doorbell
from jobs.ledger import Ledger
from jobs.model import LANES, Kind
from jobs.redis import connect
from resnetd import embedded_redis
from store import redis_account
from store.layout import Layout

HERE = Path(__file__).parent
CONSUMES_AGAIN_SECONDS = 30.0
REFUSED = [["say", "error", {"code": "broken_archive", "message": "no"}], ["exit", 78]]


class Outage:
    """A Redis of this test's own, a worker that leans on it, and jobs that show whether it works."""

    def __init__(self, layout: Layout, log: Path) -> None:
        self.command = [*embedded_redis.command(layout), *REDIS_ADMIN]
        self.admin = connect(redis_admin_url(layout))
        url = redis_account.url(layout)
        self.ledger, self.bell = Ledger(connect(url)), Doorbell(url)
        self.redis = self.start_redis()
        environment = os.environ | {"PYTHONPATH": str(HERE), "RESNETD_DATA": str(layout.root), "REDIS_URL": url}
        with log.open("ab") as output:
            toy = [sys.executable, HERE / "toy_worker.py"]
            self.worker = subprocess.Popen(toy, env=environment, stderr=output, stdout=output)

    def start_redis(self) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(self.command)
        wait_for(self.answers)
        return process

    def answers(self) -> bool:
        try:
            return bool(self.admin.ping())
        except RedisError:
            return False

    def canary(self) -> float:
        """How long a job takes from its submission to its end, s."""
        began = time.monotonic()
        job_id = self.ledger.submit(Kind.IMPORT, {"scripts": [REFUSED], "dataset": "ds_1"}).job_id
        self.bell.ring(LANES[Kind.IMPORT])
        ended(self.ledger, job_id, CONSUMES_AGAIN_SECONDS)
        return time.monotonic() - began

    def stop(self) -> None:
        for process in (self.worker, self.redis):
            process.kill()
            process.wait()
        self.admin.close()
        self.ledger.redis.close()


@pytest.fixture
def outage(layout, tmp_path):
    found = Outage(layout, tmp_path / "worker.log")
    try:
        yield found
    finally:
        found.stop()


def test_a_worker_consumes_again_after_each_restart_of_redis_and_after_a_silence(outage):
    outage.canary()
    for _ in range(2):
        outage.redis.kill()
        outage.redis.wait()
        outage.redis = outage.start_redis()
        assert outage.canary() < CONSUMES_AGAIN_SECONDS
    outage.redis.send_signal(signal.SIGSTOP)
    with pytest.raises(RedisError):
        outage.admin.ping()
    outage.redis.send_signal(signal.SIGCONT)
    assert outage.canary() < CONSUMES_AGAIN_SECONDS
    assert outage.worker.poll() is None  # it was the same one all the time
    # Meanwhile nobody asked for a right that he does not have, but for CLIENT SETINFO (see resnetd/embedded_redis.py).
    refused = {(each["reason"], each["object"]) for each in outage.admin.acl_log() if each["username"] != "tests"}
    assert refused <= {("command", "client"), ("command", "client|setinfo")}
