"""Garbage is looked for seldom, and still found."""

import subprocess
import sys

PROGRAM = """
import gc, weakref
from store.collector import settle

class Node:
    pass

settle()
assert gc.get_freeze_count() > 0
before = gc.get_stats()[0]["collections"]
kept = [Node() for _ in range(10_000)]
assert gc.get_stats()[0]["collections"] == before
lost = Node()
lost.itself, gone = lost, weakref.ref(lost)
del lost
kept += [Node() for _ in range(40_000)]
assert gone() is None
"""


def test_a_handful_of_objects_starts_no_collection_and_many_do() -> None:
    subprocess.run([sys.executable, "-c", PROGRAM], check=True, timeout=60)
