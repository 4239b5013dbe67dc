"""One running `resnetd up` for the whole session, and what must be true when it has stopped."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from running import processes_that_name, run_up

from resnetd.client import Client


@dataclass(frozen=True)
class Stack:
    url: str
    data: Path
    client: Client


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Everything that `resnetd up` starts, on a data directory of its own. It leaves no process behind."""
    folder = tmp_path_factory.mktemp("stack")
    data = folder / "var"
    running, url = run_up(data, log=folder / "up.log")
    try:
        with Client(url) as client:
            yield Stack(url, data, client)
    finally:
        running.stop()
        assert processes_that_name(data) == []
    assert running.process.returncode == 0
