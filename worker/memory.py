"""Whether the kernel has lately killed a process for want of memory."""

import time
from collections import deque
from pathlib import Path

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
    found = [Path("/proc/vmstat")]
    try:
        hierarchy, _, group = Path("/proc/self/cgroup").read_text().strip().rpartition("::")
    except OSError:
        return found
    if hierarchy.rpartition("\n")[2] == "0":  # the one hierarchy of cgroup v2
        found.insert(0, Path("/sys/fs/cgroup") / group.lstrip("/") / "memory.events")
    return found


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
