"""What processes use, and whether that grows; and the few figures that say how answers were."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.soak.http_load import Answer

MOST_GROWTH = 0.01  # between a tenth of the run and its end
MOST_BYTES = 8_000_000
MOST_MORE = 8  # descriptors, or threads: pools that start a thread when they first need it, connections under way


@dataclass(frozen=True)
class Use:
    """Of several processes together: proportional set size in bytes, the part of it that is no file, open file
    descriptors, threads.

    Growth is judged by the part that is no file: how a library's pages are shared out changes with whoever else on the
    machine uses it, and no request adds to them.
    """

    pss: int
    own: int
    fds: int
    threads: int


def use(pids: Iterable[int]) -> Use:
    """Processes that have ended count nothing."""
    pss = own = fds = threads = 0
    for pid in pids:
        try:
            lines = [line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()]
            sizes = {line[0]: int(line[1]) * 1024 for line in lines if line[-1] == "kB"}
            pss += sizes["Pss:"]
            own += sizes["Pss_Anon:"] + sizes["Pss_Shmem:"]
            fds += len(list(Path(f"/proc/{pid}/fd").iterdir()))
            threads += len(list(Path(f"/proc/{pid}/task").iterdir()))
        except OSError:
            continue
    return Use(pss, own, fds, threads)


def resident(pids: Iterable[int]) -> int:
    """Bytes of memory that is no file, which several processes have together: by the kernel's counters.

    What processes share is counted once for each. Unlike `use` it walks through no memory, which would stop them.
    """
    total = 0
    for pid in pids:
        try:
            lines = [line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines()]
        except OSError:
            continue
        total += sum(int(line[1]) * 1024 for line in lines if line and line[0] in ("RssAnon:", "RssShmem:"))
    return total


def leaks(early: Use, late: Use) -> list[str]:
    """In which respects memory, descriptors or threads grew from a tenth of a run to its end; empty: they did not."""
    grown = late.own - early.own
    found = []
    if grown > MOST_BYTES or grown > MOST_GROWTH * early.pss:
        found.append(f"memory grew by {grown / 1e6:.1f} MB of {early.pss / 1e6:.0f} MB")
    if late.fds > early.fds + MOST_MORE:
        found.append(f"file descriptors grew from {early.fds} to {late.fds}")
    if late.threads > early.threads + MOST_MORE:
        found.append(f"threads grew from {early.threads} to {late.threads}")
    return found


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of `values` that at least `share` of them do not exceed; NaN of none."""
    ordered = sorted(values)
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)] if ordered else math.nan


def milliseconds(answers: Iterable[Answer], *, share: float) -> float:
    return round(percentile([answer.seconds for answer in answers], share) * 1000, 2)


def by_status(answers: Iterable[Answer]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for answer in answers:
        name = str(answer.status) if answer.status else "broken"
        counts[name] = counts.get(name, 0) + 1
    return counts
