"""Servers of other makes, as processes: started, awaited by their first answer, and ended with all below them."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import httpx

_START_SECONDS = 180.0


@contextmanager
def answering(
    command: list[str],
    url: str,
    photo: Path,
    *,
    environment: Mapping[str, str] | None = None,
    log: IO[bytes] | None = None,
) -> Iterator[None]:
    """A program that serves `url`, from its first answer to the photograph until it and all below it have ended.

    Raises RuntimeError where none comes.
    """
    process = subprocess.Popen(command, env=environment, stdout=log or sys.stderr, stderr=log)
    try:
        _first_answer(process, url, photo.read_bytes())
        yield
    finally:
        _end(process)


def _first_answer(process: subprocess.Popen[bytes], url: str, photo: bytes) -> None:
    until, reason = time.monotonic() + _START_SECONDS, "nothing"
    while time.monotonic() < until:
        if process.poll() is not None:
            raise RuntimeError(f"the server of {url} ended with status {process.returncode}")
        try:
            answer = httpx.post(url, content=photo, headers={"Content-Type": "image/jpeg"}, timeout=60, trust_env=False)
        except httpx.HTTPError as error:
            reason = repr(error)
        else:
            if answer.is_success:
                return
            reason = f"{answer.status_code} {answer.text[:200]}"
        time.sleep(0.2)
    raise RuntimeError(f"no answer from {url}: {reason}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, and SIGKILL for it and those below it that have not ended in time."""
    below = descendants(process.pid)
    process.terminate()
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    until = time.monotonic() + 10
    while (left := [pid for pid, since in below.items() if _started(pid) == since]) and time.monotonic() < until:
        time.sleep(0.1)
    for pid in left:
        os.kill(pid, 9)


def descendants(pid: int) -> dict[int, str]:
    """All processes below this one, and when they started: by the time it is used a pid may be somebody else's."""
    found: dict[int, str] = {}
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            direct = [int(each) for each in task.read_text().split()]
        except OSError:
            continue  # the thread has just ended
        for each in direct:
            found |= {each: _started(each), **descendants(each)}
    return found


def _started(pid: int) -> str:
    """The kernel's start time of a process; empty once it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]
