"""The Makefile's virtual environment, with stand-ins for Python: nothing is downloaded."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WITH_PIP = '#!/bin/sh\necho "$@" >> installed\n'
WITHOUT_PIP = "#!/bin/sh\nexit 1\n"
MAKES_ONE = """#!/bin/sh
[ "$*" = "-m venv --clear .venv" ] || exit 2
rm -rf .venv && mkdir -p .venv/bin && cp with-pip .venv/bin/python && touch made
"""


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.mark.parametrize(("found", "made"), [(None, True), (WITHOUT_PIP, True), (WITH_PIP, False)])
def test_an_environment_that_is_missing_or_has_no_pip_is_made_anew_and_a_whole_one_is_kept(tmp_path, found, made):
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("requirements.txt", "pyproject.toml"):
        (tmp_path / name).touch()
    program(tmp_path / "with-pip", WITH_PIP)
    program(tmp_path / "programs" / "python3", MAKES_ONE)
    if found is not None:
        program(tmp_path / ".venv" / "bin" / "python", found)
    path = f"{tmp_path / 'programs'}:{os.environ['PATH']}"
    subprocess.run(["make", "install"], cwd=tmp_path, env={**os.environ, "PATH": path}, check=True, capture_output=True)
    assert (tmp_path / "made").exists() == made
    installed = (tmp_path / "installed").read_text()
    assert "--require-hashes -r requirements.txt" in installed
    assert "--editable ." in installed
