"""The machine's memory: how much can be had, and whether the kernel has lately killed a process for want of it."""

import os
import time
from collections import deque
from pathlib import Path

from store import control_group

EVIDENCE_SECONDS = 10.0  # how long before a death an OOM kill may have been counted and still explain it


def oom_kills() -> int:
    """OOM kills in this process's control group so far; on machines without such groups, in the whole machine."""
    for counter in _counters():
        try:
            fields = dict(line.split() for line in counter.read_text().splitlines())
            return int(fields["oom_kill"])
        except (OSError, KeyError, ValueError):
            continue
    return 0


def _counters() -> list[Path]:
    group = control_group.folder()
    return [*([group / "memory.events"] if group else []), Path("/proc/vmstat")]


class OomWatch:
    """Notes the counter now and then, so that a death can be compared with what was counted shortly before it."""

    def __init__(self) -> None:
        self._notes: deque[tuple[float, int]] = deque([(time.monotonic(), oom_kills())])

    def note(self) -> None:
        """To be called about once a second."""
        now = time.monotonic()
        self._notes.append((now, oom_kills()))
        while len(self._notes) > 1 and self._notes[1][0] < now - EVIDENCE_SECONDS:
            self._notes.popleft()

    def struck(self) -> bool:
        """Whether a process was killed for want of memory since the oldest note that still counts."""
        return oom_kills() > self._notes[0][1]


def available_bytes() -> int:
    """Bytes to be had without swapping, the page cache's included: the machine's, or the control group's if less."""
    return min([_machines_memory(), *_groups_memory()])


def _machines_memory() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _groups_memory() -> list[int]:
    """What the control group's limit, if it has one, leaves. A container sees its own group as the root."""
    left = []
    for limit, used, cache in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
    ):
        try:
            root = Path("/sys/fs/cgroup")
            most, now = int((root / limit).read_text()), int((root / used).read_text())
            fields = dict(line.split() for line in (root / limit).with_name("memory.stat").read_text().splitlines())
            left.append(max(0, most - now + int(fields[cache])))
        except (OSError, KeyError, ValueError):  # no such group, or "max": no limit
            continue
    return left
