"""How many files a server and its parts may have open, whatever the shell that starts them allows at first."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from store.layout import Layout

STARTED = """
import resource, sys
from resnetd import up
from store.settings import Settings

def tell(*_, announce):
    print(resource.getrlimit(resource.RLIMIT_NOFILE))

up.Parts.run = tell
up.work(Settings())
"""


def limited(limits: str, command: list[str], layout: Layout, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", "-c", f'{limits}; exec "$@"', "sh", *command],
        env={**os.environ, "RESNETD_DATA": str(layout.root), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_what_starts_the_parts_raises_the_limit_as_far_as_it_may(tmp_path: Path) -> None:
    layout = Layout(tmp_path).create()
    started = limited("ulimit -Sn 256; ulimit -Hn 3000", [sys.executable, "-c", STARTED], layout)
    assert started.stdout == "(3000, 3000)\n", started.stderr


@pytest.mark.parametrize(("limits", "warned"), [("ulimit -Sn 256", False), ("ulimit -n 1223", True)])
def test_a_server_warns_where_its_requests_are_more_than_files_may_be_open(
    tmp_path: Path, limits: str, warned: bool
) -> None:
    layout = Layout(tmp_path).create()
    command = [sys.executable, "-m", "app"]
    ended = limited(limits, command, layout, RESNETD_HOST="0.0.0.0")  # refused for want of a key, and told all before
    assert ended.returncode == 2
    assert ("too few files may be open" in ended.stderr) is warned
