"""A child that must not outlive its parent: the kernel kills it when the parent dies, however that happens.

Linux only (`prctl(PR_SET_PDEATHSIG)`). The signal comes when the *thread* that started the child ends, so start such
children from a process's main thread.
"""

import ctypes
import os
import signal

PARENT_PID = "RESNETD_PARENT_PID"
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)  # before any fork: loading after one is not safe


def child_environment() -> dict[str, str]:
    """The environment for a child that calls `attach_to_parent`."""
    return {**os.environ, PARENT_PID: str(os.getpid())}


def attach_to_parent(*, sig: signal.Signals = signal.SIGKILL) -> None:
    """Receive `sig` when the parent dies. Does nothing where `RESNETD_PARENT_PID` is unset: a process started by hand.

    A parent that died before this call can be seen only by its pid: then the process ends here, with status 1.
    The variable is removed, so that this process's own children do not take the grandparent for their parent.
    """
    expected = os.environ.pop(PARENT_PID, None)
    if expected is None:
        return
    die_with_parent(sig=sig)
    if str(os.getppid()) != expected:
        raise SystemExit(1)


def die_with_parent(*, sig: signal.Signals = signal.SIGKILL) -> None:
    """Ask the kernel to send `sig` to this process when its parent's starting thread ends."""
    if _LIBC.prctl(_PR_SET_PDEATHSIG, int(sig), 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
