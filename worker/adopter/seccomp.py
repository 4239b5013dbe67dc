"""No new sockets for this process, for good: a filter of system calls (Linux 3.17, on x86-64 and ARM64).

Landlock bans TCP alone: Redis and the fleet listen on sockets of the file system, and a datagram needs no connection.
"""

import ctypes
import errno
import platform
import struct
from dataclasses import dataclass

_SET_MODE_FILTER, _ALL_THREADS = 1, 1 << 0
# Instructions of the filter's machine, and where it finds the number and the architecture of a call.
_LOAD, _RETURN, _JUMP_IF_EQUAL, _JUMP_IF_ABOVE = 0x20, 0x06, 0x15, 0x35
_NUMBER, _ARCHITECTURE = 0, 4
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | errno.EPERM
_IO_URING_SETUP = 425  # its queues take system calls that no filter sees
_X32 = 0x40000000  # numbers from here on are another way to the same calls


@dataclass(frozen=True)
class _Machine:
    architecture: int
    seccomp: int
    socket: int
    socketpair: int
    connect: int


_MACHINES = {
    "x86_64": _Machine(architecture=0xC000003E, seccomp=317, socket=41, socketpair=53, connect=42),
    "aarch64": _Machine(architecture=0xC00000B7, seccomp=277, socket=198, socketpair=199, connect=203),
}


def forbid_sockets() -> bool:
    """Whether from now on no thread of this process can make or connect a socket: that is a PermissionError then.

    The process must have given up new privileges (PR_SET_NO_NEW_PRIVS) before.
    """
    machine = _MACHINES.get(platform.machine())
    if machine is None:
        return False
    program = ctypes.create_string_buffer(_program(machine))
    header = struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(program))
    call = ctypes.CDLL(None, use_errno=True).syscall
    return int(call(machine.seccomp, ctypes.c_uint(_SET_MODE_FILTER), ctypes.c_uint(_ALL_THREADS), header)) == 0


def _program(machine: _Machine) -> bytes:
    """Refuses calls of another architecture and of x32, and the calls that make a socket; allows everything else."""
    calls = (machine.socket, machine.socketpair, machine.connect, _IO_URING_SETUP)
    tests = [(_JUMP_IF_ABOVE, _X32), *((_JUMP_IF_EQUAL, call) for call in calls)]
    refuse = len(tests)  # instructions from behind the first test to the refusal
    lines = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_JUMP_IF_EQUAL, 0, refuse + 2, machine.architecture),
        (_LOAD, 0, 0, _NUMBER),
        *((test, refuse - at, 0, value) for at, (test, value) in enumerate(tests)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _REFUSE),
    ]
    return b"".join(struct.pack("HBBI", *line) for line in lines)
