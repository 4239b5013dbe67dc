"""The process that reads a stranger's pickle makes no socket, in no thread; what it has open it may use."""

import platform
import subprocess
import sys

import pytest

_CODE = """
import ctypes, socket, threading
from worker.adopter.seccomp import forbid_sockets

one, other = socket.socketpair()
begin, said = threading.Event(), []


def tries():
    begin.wait()
    for family, kind in ((socket.AF_UNIX, socket.SOCK_STREAM), (socket.AF_INET, socket.SOCK_DGRAM)):
        try:
            socket.socket(family, kind)
            said.append("made")
        except PermissionError:
            said.append("refused")


older = threading.Thread(target=tries)
older.start()
ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)
print(forbid_sockets())
begin.set()
older.join()
tries()
for attempt in (socket.socketpair, lambda: one.connect("/nothing")):
    try:
        attempt()
        said.append("made")
    except PermissionError:
        said.append("refused")
one.send(b"open")
print(said.count("refused"), len(said), other.recv(9).decode())
"""


@pytest.mark.skipif(platform.machine() not in {"x86_64", "aarch64"}, reason="there is no filter for this processor")
def test_no_thread_makes_or_connects_a_socket_afterwards() -> None:
    ended = subprocess.run([sys.executable, "-c", _CODE], check=True, capture_output=True, text=True, timeout=60)
    assert ended.stdout.split() == ["True", "6", "6", "open"]
