"""The peers' own virtual environment: made at first use, from a hash-locked list, with this project's torch inside.

Their packages come first on its path and this project's after them: nothing of theirs enters the environment that they
are measured against, and nothing large is there twice.
"""

import hashlib
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FOLDER = HERE / ".venv"
PYTHON = FOLDER / "bin" / "python"

_NO_TELEMETRY = {"BENTOML_DO_NOT_TRACK": "True", "RAY_USAGE_STATS_ENABLED": "0"}  # LitServe and mosec have none


def install() -> None:
    """Make the environment, if it is not there as `requirements.txt` says."""
    locked = HERE / "requirements.txt"
    mark = FOLDER / hashlib.sha256(locked.read_bytes()).hexdigest()
    if mark.exists():
        return
    subprocess.run([sys.executable, "-m", "venv", "--clear", FOLDER], check=True)
    options = ["--disable-pip-version-check", "--quiet", "--require-hashes", "--only-binary", ":all:"]
    subprocess.run([PYTHON, "-m", "pip", "install", *options, "-r", locked], check=True, stdout=sys.stderr)
    theirs = sysconfig.get_path("purelib", "venv", vars={"base": str(FOLDER), "platbase": str(FOLDER)})
    (Path(theirs) / "resnetd.pth").write_text(sysconfig.get_path("purelib") + "\n")  # what a .pth names comes last
    mark.touch()


def variables(**more: str) -> dict[str, str]:
    """The environment of a peer: it can import this repository."""
    left_out = ("RESNETD_", "PYTHON", "REDIS_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    return {**kept, **_NO_TELEMETRY, "PYTHONPATH": str(ROOT), **more}
