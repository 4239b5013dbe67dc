"""A data directory, and train jobs in it that take seconds."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from store.layout import Layout
from worker.job_arguments import JobArguments
from worker.job_process import Stop
from worker.trainer.train import train

QUICK = {"epochs": 3, "batch_size": 16, "precision": "fp32", "warmup_epochs": 0.5, "lr": 0.05, "val_fraction": 0.2}

NewJob = Callable[..., Path]
Here = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def new_job(layout: Layout) -> NewJob:
    """Writes a job's folder with the quick recipe; keyword arguments are further overrides."""

    def write(name: str, *, recipe: str = "fashion-mnist-small", **overrides: Any) -> Path:
        folder = layout.job(name)
        folder.mkdir()
        spec = {"kind": "train", "dataset": "ds_squares", "recipe": recipe, "register_as": "squares", "alias": None}
        (folder / "spec.json").write_text(json.dumps({**spec, "overrides": {**QUICK, **overrides}}))
        return folder

    return write


@pytest.fixture
def here(layout: Layout, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Iterator[Here]:
    """Train in this process, with one thread as those that are started: for what is not about processes.

    Gives what was said. A refusal and a stop are raised.
    """
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    torch.set_num_threads(1)

    def go(run_dir: Path, *, claim: int = 1) -> list[dict[str, Any]]:
        train(JobArguments(run_dir=run_dir, claim=claim, data_dir=layout.root, device="cpu"), Stop())
        return [json.loads(line) for line in capfdbinary.readouterr().out.splitlines()]

    yield go
    torch.set_num_threads(before)
