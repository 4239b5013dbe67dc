"""What a process that reads a stranger's file gives up, for good: memory, time, writing files, starting programs.

Limits hold everywhere. The ban on writing, creating and executing is Landlock's (Linux 5.13), that on sockets is a
filter of system calls: where the kernel has them not, the limits and the filter of torch stand alone.
"""

import ctypes
import os
import resource
import struct

from worker.adopter.seccomp import forbid_sockets

_CREATE_RULESET, _RESTRICT_SELF = 444, 446  # the same on every architecture
_VERSION = 1 << 0
_PR_SET_NO_NEW_PRIVS = 38
_CPU_SECONDS = 600
# Landlock's rights on files, by the version that brought them: execute, write, remove and make of every kind, but for
# reading; then refer, truncate, ioctl.
_EXECUTE_WRITE_MAKE = 0b1_1111_1111_0011
_SINCE = {2: 1 << 13, 3: 1 << 14, 5: 1 << 15}

_libc = ctypes.CDLL(None, use_errno=True)


def limit(what: int, most: int) -> None:
    """Lower one of this process's limits (`resource.RLIMIT_…`) for good; one that is lower already stays."""
    hard = resource.getrlimit(what)[1]
    lower = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(what, (lower, lower))


def enter(*, memory_bytes: int, written_bytes: int) -> bool:
    """Give all of it up. Files that are open stay usable. Whether the kernel bans writing, executing and sockets."""
    limit(resource.RLIMIT_CORE, 0)
    limit(resource.RLIMIT_DATA, memory_bytes)
    limit(resource.RLIMIT_FSIZE, written_bytes)
    limit(resource.RLIMIT_CPU, _CPU_SECONDS)
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    sockets, files = forbid_sockets(), _forbid_writing()
    return sockets and files


def _forbid_writing() -> bool:
    version = _libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint(_VERSION))
    if version < 1:
        return False
    rights = struct.pack("=Q", _EXECUTE_WRITE_MAKE | sum(right for since, right in _SINCE.items() if version >= since))
    ruleset = _libc.syscall(_CREATE_RULESET, rights, ctypes.c_size_t(len(rights)), ctypes.c_uint(0))
    if ruleset < 0:
        return False
    try:
        return int(_libc.syscall(_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint(0))) == 0
    finally:
        os.close(ruleset)
