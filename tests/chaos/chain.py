"""What a toy training computes: a chain of hashes, so that a resumed run says whether it equals a straight one."""

import hashlib
from functools import cache


def start(seed: int) -> str:
    return hashlib.sha256(f"seed {seed}".encode()).hexdigest()


def after(sha: str, step: int) -> str:
    """The state after step `step` (from 1), from the state before it."""
    return hashlib.sha256(f"{sha} {step}".encode()).hexdigest()


@cache
def straight(seed: int, steps: int) -> tuple[str, ...]:
    """The states 0 to `steps` of a run that nothing interrupts."""
    states = [start(seed)]
    for step in range(1, steps + 1):
        states.append(after(states[-1], step))
    return tuple(states)
