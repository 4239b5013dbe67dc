"""Waiting for what a test expects, and no longer."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


def wait_for(condition: Callable[[], T | None], seconds: float = 60.0) -> T:
    """The first true value of `condition`."""
    until = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.005)
    return value


@contextmanager
def meanwhile(condition: Callable[[], object], then: Callable[[], object]) -> Iterator[None]:
    """While the block runs: `then`, once, as soon as `condition` is true."""

    def wait() -> None:
        wait_for(condition)
        then()

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        yield
    finally:
        thread.join()
