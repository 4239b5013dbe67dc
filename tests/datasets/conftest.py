"""An import run in this process."""

from collections.abc import Callable
from pathlib import Path

import pytest
from archives import LIMITS

from store.datasets import Dataset
from worker.importer.importing import import_dataset
from worker.importer.limits import Limits
from worker.importer.progress import Progress
from worker.job_process import Stop

Importer = Callable[..., tuple[Dataset, Path]]


@pytest.fixture
def run_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Importer:
    """Import an archive's bytes; gives the dataset and its folder."""
    monkeypatch.setattr("worker.importer.progress.emit", lambda type, data: None)  # noqa: A006 - the protocol's name
    count = iter(range(1000))

    def run(data: bytes, limits: Limits = LIMITS) -> tuple[Dataset, Path]:
        number = next(count)
        upload, folder = tmp_path / f"upload-{number}", tmp_path / f"dataset-{number}"
        upload.write_bytes(data)
        with Progress(Stop()) as progress:
            dataset = import_dataset(upload, folder, dataset_id="ds_1", name="n", limits=limits, progress=progress)
        return dataset, folder

    return run
