"""Whether other work took the cores that a measurement needed, by what Linux counts of each thread."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

MACHINE_BUSY = "machine_busy"  # the problem of a plan that was measured so; it is not kept for another one
UNDISTURBED = 0.85  # of the cores' time, at least; a machine with nothing else to do gives 0.97 and more
_THREADS = Path("/proc/self/task")


@dataclass(frozen=True)
class Turns:
    """Nanoseconds for which this process's threads computed, and for which they were ready and waited for a core."""

    ran: int
    waited: int

    @classmethod
    def now(cls) -> Self:
        """Of the threads that live; nothing where the kernel counts no such thing."""
        ran = waited = 0
        for file in _THREADS.glob("*/schedstat"):
            try:
                computing, waiting, _ = map(int, file.read_text().split())
            except OSError:  # the thread has ended
                continue
            ran, waited = ran + computing, waited + waiting
        return cls(ran, waited)

    def share_since(self, earlier: "Turns") -> float | None:
        """Of the time for which the threads wanted cores, the part in which they had them."""
        ran, waited = max(self.ran - earlier.ran, 0), max(self.waited - earlier.waited, 0)
        return round(ran / (ran + waited), 3) if ran + waited else None
