"""One running `resnetd up` for the whole session, and what must be true when it has stopped."""

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from running import RESNETD, environment, processes_that_name, run_up
from samples import zip_mini

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


@pytest.fixture(scope="session")
def digits(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The subset of Fashion-MNIST, imported, its classes called as those of the MNIST starter are."""
    archive = zip_mini(tmp_path_factory.mktemp("digits") / "digits.zip", named=False)
    accepted = stack.client.upload_dataset(archive)
    job = stack.client.wait(accepted["job"]["id"])
    assert job["state"] == "succeeded", job["error"]
    return str(accepted["id"])


@pytest.fixture(scope="session")
def resnetd(stack: Stack) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command line, as a process of its own, against the stack; it must end with `code`."""
    variables = environment(RESNETD_SERVER=stack.url)

    def run(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        command = [RESNETD, *arguments]
        ended = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=120, check=False)
        assert ended.returncode == code, ended.stderr
        return ended

    return run
