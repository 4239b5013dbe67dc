"""A supervisor whose jobs do what their spec says, claim by claim."""

import threading
from pathlib import Path

import pytest

from jobs import keys
from jobs.model import Kind, Lane
from worker import child, supervisor
from worker.lane import slot
from worker.supervisor import Workplace

HERE = Path(__file__).parent


@pytest.fixture
def workplace(layout, tmp_path):
    return Workplace(layout=layout, device="cpu", drain=tmp_path / "drain", stall_seconds=60.0, drain_seconds=20.0)


@pytest.fixture
def run(ledger, layout, workplace, monkeypatch):
    """Submit a job of scripted claims, or take one, and answer bells for it; returns its record."""
    monkeypatch.setitem(child.PROGRAMS, Kind.TRAIN, "toy_job")
    monkeypatch.setenv("PYTHONPATH", str(HERE))

    def go(*scripts, bells=1, meanwhile=None, job_id=None, at=workplace, **submitted):
        if job_id is None:
            job_id = ledger.submit(Kind.TRAIN, {"scripts": scripts}, **submitted).job_id
        if meanwhile:
            threading.Thread(target=meanwhile, args=(job_id,), daemon=True).start()
        for _ in range(bells):
            ledger.redis.zadd(keys.due(Lane.DEVICE), {job_id: 0})
            with slot(layout, Lane.DEVICE, "cpu") as held:
                supervisor.answer(Lane.DEVICE, ledger, at, slot=held)
        return ledger.get(job_id)

    return go
