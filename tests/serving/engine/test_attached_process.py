"""A child that must not outlive its parent."""

import os
import signal
import subprocess
import sys

from serving_toys import alive
from waiting import wait_for

from store.process import PARENT_PID, child_environment

CHILD = "from store.process import attach_to_parent; attach_to_parent(); print('attached', flush=True); input()"
PARENT = f"""
import subprocess, sys
from store.process import child_environment
child = subprocess.Popen([sys.executable, "-c", {CHILD!r}], env=child_environment(), stdin=subprocess.PIPE)
print(child.pid, flush=True)
child.wait()
"""


def test_it_is_killed_by_the_kernel_when_its_parent_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        said = {parent.stdout.readline().strip(), parent.stdout.readline().strip()}
        (child,) = (int(word) for word in said - {"attached"})
        assert alive(child)
        parent.send_signal(signal.SIGKILL)
        wait_for(lambda: not alive(child))


def test_it_ends_by_itself_where_its_parent_died_before_it_looked() -> None:
    environment = {**os.environ, PARENT_PID: "1"}
    done = subprocess.run([sys.executable, "-c", CHILD], env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (1, b"")


def test_its_own_children_do_not_take_the_grandparent_for_their_parent() -> None:
    code = f"import os; from store.process import *; attach_to_parent(); print(os.environ.get({PARENT_PID!r}))"
    done = subprocess.run([sys.executable, "-c", code], env=child_environment(), capture_output=True, check=True)
    assert done.stdout == b"None\n"


def test_a_process_started_by_hand_is_left_alone() -> None:
    done = subprocess.run([sys.executable, "-c", CHILD], input=b"\n", capture_output=True, check=True)
    assert done.stdout == b"attached\n"
