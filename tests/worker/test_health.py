"""The health check of a worker's container: whether a worker that comes from its own address listens."""

import subprocess
import sys
from threading import Thread

from redis import Redis
from running import environment, wait_for

from worker.health import listens, one_waits_beside

OWN = {"name": "health-1", "cmd": "client|list", "addr": "172.18.0.4:40112"}


def waiting(addr: str, *, cmd: str = "brpop") -> dict[str, str]:
    return {"name": "", "cmd": cmd, "addr": addr}


def test_a_worker_of_another_container_does_not_count():
    assert one_waits_beside("health-1", [OWN, waiting("172.18.0.4:51000")])
    assert not one_waits_beside("health-1", [OWN, waiting("172.18.0.5:51000")])
    assert not one_waits_beside("health-1", [OWN, waiting("172.18.0.4:51000", cmd="evalsha")])


def exit_status(redis_url: str, folder) -> int:
    command, env = [sys.executable, "-m", "worker.health"], environment(REDIS_URL=redis_url, RESNETD_DATA=str(folder))
    return subprocess.run(command, env=env, capture_output=True, timeout=30, check=False).returncode


def test_the_command_says_by_its_exit_status_whether_somebody_waits_at_a_queue(redis_url, tmp_path):
    assert exit_status(redis_url, tmp_path) == 1
    with Redis.from_url(redis_url) as worker:
        bell = Thread(target=worker.brpop, args=(["rn:bell"], 20))
        bell.start()
        try:
            wait_for(lambda: listens(redis_url))
            assert exit_status(redis_url, tmp_path) == 0
        finally:
            with Redis.from_url(redis_url) as ringer:
                ringer.lpush("rn:bell", "ring")
            bell.join()


def test_a_redis_that_is_away_is_a_failed_check_without_a_traceback(tmp_path):
    command = [sys.executable, "-m", "worker.health"]
    env = environment(REDIS_URL=f"unix://{tmp_path}/none.sock", RESNETD_DATA=str(tmp_path))
    ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=30, check=False)
    assert (ended.returncode, "Traceback" in ended.stderr) == (1, False)
    assert "Redis does not answer" in ended.stderr
