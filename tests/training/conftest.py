"""A data directory, and train jobs in it that take seconds."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from store.layout import Layout


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "data").create()


QUICK = {"epochs": 3, "batch_size": 16, "precision": "fp32", "warmup_epochs": 0.5, "lr": 0.05, "val_fraction": 0.2}

NewJob = Callable[..., Path]


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
