"""Where a benchmark's figures come from, as each of its records tells: the command, the machine, the day, the commit.

It says what a machine is, not which one: no host is named, and no path leads to somebody's folders.
"""

import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from store.control_group import usable_cores

ROOT = Path(__file__).resolve().parents[1]
_URL = re.compile(r"\w+://[^\s,\"']+")
_ABSOLUTE = re.compile(r"(?<![^\s=:,\"'])/[^,\"']*")


def origin() -> dict[str, Any]:
    """`command`, `machine`, `date` (UTC) and `commit`, which is `unknown` outside a repository."""
    return {
        "command": command(sys.orig_argv),
        "machine": _machine(),
        "date": datetime.now(UTC).date().isoformat(),
        "commit": _commit(),
    }


def command(words: Sequence[str]) -> str:
    """A command line of Python without servers' addresses, absolute paths and the value of RESNETD_TEST_DATA.

    Paths in the repository become relative to it; of others only the last part is told.
    """
    shown = (_ABSOLUTE.sub(lambda found: _told(found[0]), _URL.sub("URL", word)) for word in words[1:])
    return shlex.join(["python", *shown])


def _told(path: str) -> str:
    place, data = Path(path).resolve(), os.environ.get("RESNETD_TEST_DATA")
    if data and place.is_relative_to(Path(data).resolve()):
        return str("RESNETD_TEST_DATA" / place.relative_to(Path(data).resolve()))
    if place.is_relative_to(ROOT):
        return str(place.relative_to(ROOT))
    return f".../{place.name}"


def _machine() -> dict[str, Any]:
    return {
        "cpu": _cpu(),
        "cores": usable_cores(),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "gpu": _gpu(),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "torch": version("torch"),
    }


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _gpu() -> str | None:
    """The names of all GPUs, asked without CUDA, which a process that forks must not have begun; None without one."""
    asked = _said(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"])
    return ", ".join(asked.splitlines()) if asked else None


def _commit() -> str:
    """With a plus where the tree differs from it."""
    return _said(["git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--exclude=*"]) or "unknown"


def _said(command: list[str]) -> str | None:
    """Standard output; None where there is no such program, or it fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
