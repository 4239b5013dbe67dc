"""An import and its supervisor: one that hangs is noticed, and one that is killed leaves no dataset behind."""

import os
import signal
from pathlib import Path

import pytest
from archives import png, zipped
from running import processes_that_name
from waiting import meanwhile

from jobs.ledger import Ledger
from jobs.model import Job, JobError, Kind, Lane, State
from store.layout import Layout
from worker import child, supervisor
from worker.lane import slot
from worker.supervisor import Supervisor, Workplace

UPLOAD = zipped({f"{name}/{i}.png": png(0) for name in ("cat", "dog") for i in range(4000)})


@pytest.fixture
def at(layout: Layout, tmp_path: Path) -> Workplace:
    return Workplace(layout=layout, device="cpu", drain=tmp_path / "drain", stall_seconds=60.0, drain_seconds=20.0)


@pytest.fixture
def job_id(ledger: Ledger, layout: Layout) -> str:
    layout.dataset("ds_1").mkdir()
    (layout.dataset("ds_1") / "upload").write_bytes(UPLOAD)
    return ledger.submit(Kind.IMPORT, {"dataset": "ds_1", "name": "pets"}, max_seconds=30).job_id


def run(job_id: str, ledger: Ledger, at: Workplace) -> Job:
    with slot(at.layout, Lane.CPU, "cpu") as held:
        assert held is not None
        supervisor.answer(Lane.CPU, ledger, at, slot=held)
    return ledger.get(job_id)


def test_an_import_that_hangs_is_ended(ledger, at, job_id, monkeypatch):
    monkeypatch.setitem(child.PROGRAMS, Kind.IMPORT, "stuck_importer")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    decoding = at.layout.job(job_id) / "decoding"
    with meanwhile(decoding.exists, lambda: monkeypatch.setattr(Supervisor, "patience", 1.0)):
        job = run(job_id, ledger, at)
    assert (job.state, job.crashes) == (State.QUEUED, 1)
    error = JobError.model_validate(ledger.events(job_id, limit=100)[0][-1].data["error"])
    assert error.code == "stalled"
    assert "decode_nothing" in error.hint


def test_a_cancelled_import_that_is_killed_while_it_writes_leaves_nothing_of_its_dataset(ledger, at, job_id):
    folder = at.layout.job(job_id)

    def freeze_and_cancel() -> None:  # what does not answer to SIGTERM is killed
        (importer,) = processes_that_name(folder)
        os.kill(int(importer.partition(":")[0]), signal.SIGSTOP)
        assert not list(folder.glob("claim-1/dataset"))
        ledger.cancel(job_id)

    with meanwhile(lambda: list(folder.glob("claim-1/.dataset.*/data/.pixels.spool")), freeze_and_cancel):
        job = run(job_id, ledger, at)
    assert job.state is State.CANCELLED
    assert {path.name for path in folder.glob("claim-1/**/*")} == {"orders.json", "stderr.log"}
