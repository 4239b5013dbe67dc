"""A session's small models, and fleets that end with their test."""

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from serving_toys import FleetProcess, make_artifact

from store.layout import Layout


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three different models, made by job_0, job_1 and job_2."""
    folder = tmp_path_factory.mktemp("artifacts")
    return [make_artifact(folder / f"model-{i}", job=f"job_{i}", seed=i) for i in range(3)]


@pytest.fixture
def layout() -> Iterator[Layout]:
    """A fresh data directory, its path short enough for the sockets to lie in it."""
    with tempfile.TemporaryDirectory(prefix="resnetd-test-") as data:
        yield Layout(Path(data)).create()


@pytest.fixture
def fleet(layout: Layout, artifacts: list[Path]) -> Iterator[Callable[..., FleetProcess]]:
    """Start a fleet whose catalog has toy@1 as production; the test may start it with `max_engines`."""
    started: list[FleetProcess] = []

    def start(*, max_engines: int = 4) -> FleetProcess:
        FleetProcess.publish_default(layout, artifacts[0])
        started.append(FleetProcess(layout, max_engines=max_engines))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.stop()
