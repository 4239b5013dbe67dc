"""A lane's slot is one for each device, held by the kernel, and can be looked at without disturbing anybody."""

import subprocess
import sys
import threading

from waiting import wait_for

from jobs.model import Lane
from worker.lane import last_taken, lock_path, slot


def free(layout, lane=Lane.DEVICE):
    with slot(layout, lane, "cpu") as held:
        return held is not None


def test_a_slot_is_one_for_each_lane(layout):
    with slot(layout, Lane.DEVICE, "cpu") as held:
        assert held is not None
        assert not free(layout)
        assert free(layout, Lane.CPU)
    assert free(layout)


def test_a_device_has_one_slot_however_it_is_named(layout):
    for_device = {name: lock_path(layout, Lane.DEVICE, name) for name in ("auto", "cpu", "cuda", "cuda:0", "cuda:1")}
    assert for_device["cuda"] == for_device["cuda:0"]
    assert for_device["auto"] in (for_device["cpu"], for_device["cuda"])
    assert len(set(for_device.values())) == 3


def test_a_slot_is_free_only_when_the_last_process_that_has_it_is_gone(layout):
    with slot(layout, Lane.DEVICE, "cpu") as held:
        user = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[held])
    try:
        assert not free(layout)
    finally:
        user.kill()
        user.communicate()
    assert free(layout)


def test_looking_at_a_slot_tells_whether_it_is_held_and_when_it_was_taken(layout):
    lock = lock_path(layout, Lane.DEVICE, "cpu")
    assert last_taken(lock) == 0  # never
    with slot(layout, Lane.DEVICE, "cpu"):
        assert last_taken(lock) is None
    before = last_taken(lock)
    assert before is not None
    assert free(layout)
    wait_for(lambda: free(layout) and (last_taken(lock) or 0) > before)


def test_however_often_somebody_looks_the_slot_can_be_taken(layout):
    done = threading.Event()
    lock = lock_path(layout, Lane.DEVICE, "cpu")

    def look():
        while not done.is_set():
            last_taken(lock)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        assert all(free(layout) for _ in range(3000))
    finally:
        done.set()
        watcher.join()
