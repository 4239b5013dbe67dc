"""What resnetd writes is its user's alone, however it is started."""

import subprocess
import sys
from pathlib import Path

import pytest
from running import environment

STARTED = """
import os, sys
from resnetd import up
from store.settings import Settings

up.Parts.run = lambda *_, announce: print(f"{os.umask(0):o}")
getattr(up, sys.argv[1])(Settings())
"""
PART = """
import os, runpy, sys
from store import settings

def began(*_, **__):
    print(f"{os.umask(0):o}")
    sys.exit()

settings.Settings = began
runpy.run_module(sys.argv.pop(), run_name="__main__")
"""


def said(program: str, what: str, data: Path) -> str:
    env = environment(RESNETD_DATA=str(data), RESNETD_PORT="0", REDIS_URL="redis://nobody:1/0")
    command = [sys.executable, "-c", f"import os; os.umask(0o022)\n{program}", what]
    ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


@pytest.mark.parametrize("what", ["up", "serve", "work"])
def test_each_way_to_start_gives_its_parts_the_umask(what: str, tmp_path: Path) -> None:
    assert said(STARTED, what, tmp_path / "var") == "77"
    assert (tmp_path / "var").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("part", ["app", "worker", "app.fleet"])
def test_a_part_that_is_started_alone_has_it_too(part: str, tmp_path: Path) -> None:
    assert said(PART, part, tmp_path / "var") == "77"
