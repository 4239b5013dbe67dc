"""A data directory with the starter models and a subset of Fashion-MNIST named by digits, and jobs' folders in it."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mini_dataset import write_mini

from models.catalog import Catalog
from store.layout import Layout

NewJob = Callable[..., Path]


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    layout = Layout(tmp_path_factory.mktemp("evaluation") / "data").create()
    Catalog(layout.models).seed()
    write_mini(layout, "ds_mini", part="t10k")
    return layout


@pytest.fixture
def new_job(layout: Layout, request: pytest.FixtureRequest) -> NewJob:
    """Writes a job's folder with its spec; the folder."""
    made = 0

    def write(kind: str, **spec: Any) -> Path:
        nonlocal made
        made += 1
        folder = layout.job(f"job_{hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:24]}_{made}")
        folder.mkdir()
        (folder / "spec.json").write_text(json.dumps({"kind": kind, **spec}))
        return folder

    return write
