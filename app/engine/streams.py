"""The threads in which an engine's streams compute, and the cores that they keep to."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress


class Streams:
    """A thread a stream.

    Where there is a stream for each core, and all of them are at work, each keeps to its own, which was measured to
    answer more (`docs/decisions/0014-what-is-plain-and-who-keeps-to-a-core.md`). Who computes while others rest goes
    where there is room: other engines compute on these cores, too.
    """

    def __init__(self, count: int) -> None:
        self.threads = ThreadPoolExecutor(count, thread_name_prefix="narrow")
        self._cores = sorted(os.sched_getaffinity(0))
        self._divided = count == len(self._cores)
        self._free = iter(self._cores)
        self._own = threading.local()  # `core`, and whether this thread is `kept` to it

    def keep(self, *, crowded: bool) -> None:
        """In one of the threads: `crowded` says whether every stream is at work."""
        if not self._divided or getattr(self._own, "kept", False) is crowded:
            return
        if not hasattr(self._own, "core"):
            self._own.core = next(self._free)
        self._own.kept = crowded
        with suppress(OSError):  # a core was taken from this process meanwhile
            os.sched_setaffinity(0, {self._own.core} if crowded else self._cores)
