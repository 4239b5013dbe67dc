"""One training on several devices: this process starts a process for each, the ranks, and lives as long as they do.

What torchrun does for many machines, in the way of this project's jobs: the ranks are in this process's group and die
with it, SIGTERM and SIGUSR1 are handed on, and the exit status is that of the rank whose end was no consequence of
another's. Rank 0 alone speaks on standard output. A rank is told what it is by torchrun's variables; so
`torchrun --standalone --nproc-per-node 2 -m worker.trainer RUN_DIR --claim 1` is the same training.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from multiprocessing.connection import wait
from pathlib import Path
from types import FrameType
from uuid import uuid4

from models import checkpoint_files
from store.control_group import usable_cores
from store.process import child_environment
from worker.job_arguments import JobArguments
from worker.job_process import DISK_FULL, DONE, REFUSED, STOPPED, lines_out

RENDEZVOUS = "RESNETD_RENDEZVOUS"  # the file by which the ranks find each other; unset: as torchrun says
_AFTER_A_CRASH_SECONDS = 5.0  # in which ranks that lost one may still say something of their own


def is_rank() -> bool:
    """Whether this process is one of several, here or by torchrun."""
    return "LOCAL_RANK" in os.environ


def run_ranks(at: JobArguments, *, count: int) -> int:
    """Start that many ranks of the training, wait for their end, and return this process's exit status.

    Where the kernel's SIGKILL ended a rank, it ends this process too: whoever looks sees how the job died.
    """
    at.claim_dir.mkdir(parents=True, exist_ok=True)
    checkpoint_files.sweep(at.claim_dir)
    rendezvous = at.claim_dir / f".rendezvous.{uuid4().hex}.tmp"  # a hidden name: swept away with what a kill leaves
    ranks: list[subprocess.Popen[bytes]] = []
    early: list[int] = []  # signals that came before all ranks were there

    def hand_on(number: int, _frame: FrameType | None) -> None:
        early.append(number)
        _signal(ranks, number)

    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, hand_on)
    try:
        for place in range(count):
            ranks.append(_start(at, place, count, rendezvous))  # noqa: PERF401 - signals go to those that are there
        for sent in early:
            _signal(ranks, sent)
        rank, code = verdict(_ends(ranks))
        if rank:
            _say_for(ranks[rank])
    finally:
        _signal(ranks, signal.SIGKILL)
        for each in ranks:
            each.wait()
        rendezvous.unlink(missing_ok=True)
    if code == -signal.SIGTERM:  # it was told to stop before it could listen: nothing was reached that is not saved
        return STOPPED
    if code < 0:
        print(f"rank {rank} was ended by signal {-code}", file=sys.stderr, flush=True)  # noqa: T201 - for people
        if code == -signal.SIGKILL:
            os.kill(os.getpid(), signal.SIGKILL)
        return 1
    return code


def verdict(ends: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """(rank, exit status) that stands for all of them, from their ends in the order of time.

    One that says what is wrong explains the others, which lost a partner. So does one that obeyed a stop, for which all
    were asked: what else was wrong, whoever goes on will meet again. Else the first that did not end well does.
    """
    for wanted in ((REFUSED, DISK_FULL), (STOPPED, -signal.SIGTERM), None):
        for rank, code in ends:
            if code in wanted if wanted else code != DONE:
                return rank, code
    return 0, DONE


def _start(at: JobArguments, rank: int, count: int, rendezvous: Path) -> "subprocess.Popen[bytes]":
    cores = usable_cores()
    environment = {
        "OMP_NUM_THREADS": str(max(1, cores // count)),
        "GLOO_SOCKET_IFNAME": "lo",
        **child_environment(),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        RENDEZVOUS: str(rendezvous),
    }
    command = [sys.executable, "-m", "worker.trainer", str(at.run_dir), "--claim", str(at.claim)]
    command += ["--data", str(at.data_dir), "--device", at.device]
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE if rank else lines_out(),
        env=environment,
        close_fds=False,  # the lane's slot is theirs too: the device is taken until the last of them is gone
    )


def _ends(ranks: "Sequence[subprocess.Popen[bytes]]") -> list[tuple[int, int]]:
    """(rank, exit status) of each, as they end. After a crash the others have a few seconds left to be listed."""
    watched = {os.pidfd_open(process.pid): rank for rank, process in enumerate(ranks)}
    until: float | None = None
    ends: list[tuple[int, int]] = []
    try:
        while watched:
            ready = wait(list(watched), None if until is None else max(0.0, until - time.monotonic()))
            if not ready:
                break
            for fd in sorted(each for each in ready if isinstance(each, int)):
                rank = watched.pop(fd)
                os.close(fd)
                ends.append((rank, ranks[rank].wait()))
                if until is None and ends[-1][1] not in (DONE, STOPPED):
                    until = time.monotonic() + _AFTER_A_CRASH_SECONDS
    finally:
        for fd in watched:
            os.close(fd)
    return ends


def _signal(ranks: "Sequence[subprocess.Popen[bytes]]", number: int) -> None:
    for process in ranks:
        process.send_signal(number)  # does nothing once it was waited for


def _say_for(process: "subprocess.Popen[bytes]") -> None:
    """Pass on why another rank than 0 refused: its error line, all that it may say."""
    if process.stdout is not None:
        with process.stdout as said:
            os.write(lines_out(), said.read())
