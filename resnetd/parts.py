"""The parts that `resnetd up` runs: started, watched, started again when they die, and stopped for certain.

One thread, the main one: the kernel ties each child's life to the thread that started it.
"""

import logging
import math
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from resnetd import orphans
from store.process import child_environment, die_with_parent

log = logging.getLogger(__name__)

TICK_SECONDS = 0.2
STOP_TICK_SECONDS = 0.02
SHORTEST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
STEADY_SECONDS = 30.0  # a part that lived this long starts again without delay
STOP_SECONDS, REDIS_STOP_SECONDS = 11.0, 2.5
KILLED_SECONDS = 0.5  # until what was killed is gone; the kernel may hold a process for longer


@dataclass
class Part:
    """One child process. `ready` is asked after a start and says whether others may start."""

    name: str
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    pass_fds: Sequence[int] = ()
    ready: Callable[[], bool] = lambda: True
    leans_on: Sequence[str] = ()  # parts that it needs to the end: they stop after it
    stop_seconds: float = STOP_SECONDS
    hurries: bool = False  # SIGINT, a person's, is told to it as such
    last_words: Callable[[int], str] = lambda _: ""  # what a log of its own has of the end of the process with this pid
    process: "subprocess.Popen[bytes] | None" = None
    _started: float = 0.0
    _pause: float = 0.0
    _resume: float = 0.0
    _kill_at: float = 0.0
    _give_up_at: float | None = None  # it was killed, and is waited for until then

    def start(self) -> None:
        self.process = subprocess.Popen(
            self.command,
            stdin=subprocess.DEVNULL,
            env={**child_environment(), **self.environment},
            pass_fds=self.pass_fds,
            process_group=0,  # Ctrl-C reaches `up` alone, which stops its parts in order
            preexec_fn=die_with_parent,  # noqa: PLW1509 - one thread; for redis-server, which is not ours to teach
        )
        self._started = time.monotonic()

    def watch(self) -> None:
        """Start the part again if it has died, later each time it dies soon."""
        now = time.monotonic()
        if self.process is None:
            if now >= self._resume:
                try:
                    self.start()
                except OSError as error:  # no process or memory is to be had now
                    self._resume = now + LONGEST_PAUSE
                    log.error("a part could not be started", extra={"part_name": self.name, "reason": str(error)})  # noqa: TRY400
            return
        code = self.process.poll()
        if code is None:
            return
        lived = now - self._started
        self._pause = (
            SHORTEST_PAUSE if lived > STEADY_SECONDS else min(max(self._pause * 2, SHORTEST_PAUSE), LONGEST_PAUSE)
        )
        self._resume = now + self._pause
        words = self.last_words(self.process.pid) if code > 0 else ""  # a signal says all that there is to say
        why = f"{reason(code)}: {words}" if words else reason(code)
        self.process = None
        log.error(
            "a part died and is started again",
            extra={"died": self.name, "reason": why, "lived_s": round(lived, 1), "pause_s": self._pause},
        )

    def terminate(self, by: signal.Signals = signal.SIGTERM, *, until: float = math.inf) -> None:
        """Tell it to stop. It has its `stop_seconds`, and at most until then, a moment of the monotonic clock."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(by if self.hurries else signal.SIGTERM)
        self._kill_at = min(time.monotonic() + self.stop_seconds, until)

    def gone(self) -> bool:
        """Whether it has ended after `terminate`; killed, with its group, where it took longer than it may.

        Waits for nothing, so that those that are killed at the same time are also waited for at the same time. True
        too of one that the kernel holds KILLED_SECONDS after that.
        """
        if self.process is None or self.process.poll() is not None:
            return True
        now = time.monotonic()
        if self._give_up_at is not None:
            return now >= self._give_up_at
        if now >= self._kill_at:
            log.warning("a part did not stop in time and was killed", extra={"killed": self.name})
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)  # the group's number is ours until its leader is collected
            self._give_up_at = now + KILLED_SECONDS
        return False


def reason(code: int) -> str:
    """An exit status in words."""
    return f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"


class Parts:
    """All parts, in the order in which they start. They stop within `seconds`, whatever each of them may take."""

    def __init__(self, parts: list[Part], *, seconds: float = math.inf) -> None:
        self._parts = parts
        self._seconds = seconds
        self._stopping = False
        self._told = math.inf
        self._by = signal.SIGTERM

    @property
    def stop_seconds(self) -> float:
        """How long a stop takes at most: that of the slowest part with those that wait for its end."""
        return min(self._seconds, max((part.stop_seconds + self._after(part) for part in self._parts), default=0.0))

    def _after(self, part: Part) -> float:
        """The seconds that those need which stop after this part."""
        after = [each for each in self._parts if each.name in part.leans_on]
        return max((each.stop_seconds + self._after(each) for each in after), default=0.0)

    def run(self, *, announce: Callable[[], bool]) -> None:
        """Start everything, watch it until SIGINT or SIGTERM, stop everything.

        `announce` is tried until it says True: what is to be told once all parts work together.
        """
        others = orphans.children()  # of a shell that became this process
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # whoever started us may ignore it: exit statuses would be lost
        try:
            for part in self._parts:
                if self._stopping:
                    break
                part.start()
                while not self._stopping and not part.ready():
                    part.watch()
                    time.sleep(TICK_SECONDS / 4)
            announced = False
            while not self._stopping:
                for part in self._parts:
                    part.watch()
                announced = announced or announce()
                time.sleep(TICK_SECONDS)
        finally:
            orphans.adopt()
            self._stop_all()
            ended = orphans.end(spared=others, seconds=KILLED_SECONDS)
            if ended:
                log.warning("processes that were left were killed", extra={"killed": sorted(ended)})

    def _stop(self, number: int, _: object) -> None:
        self._stopping, self._by = True, signal.Signals(number)
        self._told = min(self._told, time.monotonic())

    def _stop_all(self) -> None:
        """Each part once nobody who leans on it is left: requests under way end while there are engines."""
        until = min(self._told, time.monotonic()) + self._seconds
        left, told = list(self._parts), set[str]()
        while left:
            for part in left:
                if part.name not in told and not any(part.name in each.leans_on for each in left):
                    part.terminate(self._by, until=until - self._after(part))
                    told.add(part.name)
            left = [part for part in left if part.name not in told or not part.gone()]
            time.sleep(STOP_TICK_SECONDS)
