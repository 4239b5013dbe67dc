"""An OOM kill explains a death only when it was counted shortly before."""

import time

from worker import memory
from worker.memory import OomWatch, oom_kills


def test_only_what_was_counted_lately_explains_a_death(monkeypatch):
    kills, now = [5], [100.0]
    monkeypatch.setattr(memory, "oom_kills", lambda: kills[0])
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    watch = OomWatch()
    assert not watch.struck()
    kills[0] += 1
    watch.note()  # seen before the death is
    assert watch.struck()
    for _ in range(30):  # long ago by now
        now[0] += 1
        watch.note()
    assert not watch.struck()


def test_this_machine_counts_its_oom_kills():
    assert oom_kills() >= 0


def test_the_counter_of_the_control_group_comes_before_the_machines(monkeypatch, tmp_path):
    group, machine = tmp_path / "memory.events", tmp_path / "vmstat"
    monkeypatch.setattr(memory, "_counters", lambda: [group, machine])
    machine.write_text("pgfault 12\noom_kill 7\n")
    assert oom_kills() == 7
    group.write_text("low 0\nhigh 0\nmax 3\noom 1\noom_kill 1\n")
    assert oom_kills() == 1
