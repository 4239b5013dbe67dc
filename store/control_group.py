"""The control group of this process: where it is, and how many of the machine's cores it leaves."""

import os
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")


def folder() -> Path | None:
    """Where cgroup v2 tells of this process's group; None on machines without it."""
    try:
        hierarchy, _, group = Path("/proc/self/cgroup").read_text().strip().rpartition("::")
    except OSError:
        return None
    return _ROOT / group.lstrip("/") if hierarchy.rpartition("\n")[2] == "0" else None


def usable_cores() -> int:
    """Cores that this process may run on, and no more than its container's CPU quota pays for."""
    mine = len(os.sched_getaffinity(0))
    return min([mine, *(cores for quota in _quotas() if (cores := quota_cores(quota)) is not None)])


def quota_cores(quota: str) -> int | None:
    """The cores of `quota period`, both in µs, rounded up; None where there is no quota (`max`, or -1 in cgroup v1)."""
    time, period = quota.split()
    return -(-int(time) // int(period)) if time.isdigit() else None


def _quotas() -> Iterator[str]:
    """Of this group and of those around it. A container may see its own as the root, whatever it is called outside."""
    group = folder() or _ROOT
    of_v2 = [[place / "cpu.max"] for place in (group, *group.parents) if place.is_relative_to(_ROOT)]
    of_v1 = [_ROOT / "cpu" / "cpu.cfs_quota_us", _ROOT / "cpu" / "cpu.cfs_period_us"]
    for files in (*of_v2, of_v1):
        try:
            yield " ".join(file.read_text() for file in files)
        except OSError:  # no such group, or the other kind of groups
            continue
