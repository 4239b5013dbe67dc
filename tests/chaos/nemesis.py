"""Kills parts at random, in given proportions, and writes down what it did."""

import asyncio
import random
from collections import Counter
from collections.abc import Callable

from history import History
from stack import Stack, children, strike

#: Of 1,000 kills.
PROPORTIONS = {"trainer": 400, "pool": 200, "worker": 150, "api": 150, "redis": 100}
SEEK_SECONDS = 20.0


class Nemesis:
    def __init__(self, stack: Stack, history: History, seed: int) -> None:
        self.stack, self.history = stack, history
        self.random = random.Random(seed)
        self.done: Counter[str] = Counter()

    def plan(self, kills: int) -> list[str]:
        """What is killed in which order: the proportions, shuffled."""
        share = sum(PROPORTIONS.values())
        roles = [role for role, part in PROPORTIONS.items() for _ in range(round(kills * part / share))]
        roles += ["trainer"] * (kills - len(roles))
        self.random.shuffle(roles)
        return roles[:kills]

    async def kill_all(self, kills: int, *, pause: tuple[float, float]) -> None:
        for role in self.plan(kills):
            await asyncio.sleep(self.random.uniform(*pause))
            await self.kill(role)

    async def kill(self, role: str) -> bool:
        """kill -9 one process of the role, as soon as there is one."""
        target = self._target(role)
        for _ in range(int(SEEK_SECONDS / 0.02)):
            pid = target()
            if pid is not None:
                jobs = sorted(set(self.stack.trainers().values()))
                if strike(pid):
                    self.history.add("info", "kill", role=role, pid=pid, jobs=jobs)
                    self.done[role] += 1
                    return True
            await asyncio.sleep(0.02)
        self.history.add("fail", "kill", role=role)
        return False

    def _target(self, role: str) -> Callable[[], int | None]:
        workers = [part.name for part in self.stack.parts if part.name.startswith("worker")]
        apis = [part.name for part in self.stack.parts if part.name.startswith("api")]
        match role:
            case "trainer":
                return lambda: _any(self.random, list(self.stack.trainers()))
            case "pool":
                return lambda: _any(self.random, self._supervisors())
            case "worker":
                return lambda: self.stack.pid(self.random.choice(workers))
            case "api":
                return lambda: self.stack.pid(self.random.choice(apis))
            case _:
                return lambda: self.stack.pid("redis")

    def _supervisors(self) -> list[int]:
        """The pool processes that have a job."""
        workers = [part.name for part in self.stack.parts if part.name.startswith("worker")]
        return [pid for worker in workers for pid in self.stack.pool(worker) if children(pid)]


def _any(choice: random.Random, pids: list[int]) -> int | None:
    return choice.choice(pids) if pids else None
