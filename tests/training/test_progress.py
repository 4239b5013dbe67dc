"""Two progress lines a second, however long a step takes, and in none of them is the run less far than before."""

import threading
import time
from typing import Any

import pytest
from squares import squares, write_dataset

from store.layout import Layout
from worker.trainer import progress as lines
from worker.trainer.loop import Loop
from worker.trainer.progress import Progress


@pytest.fixture
def spoken(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    said: list[dict[str, Any]] = []
    monkeypatch.setattr(lines, "emit", lambda _, data: said.append(data))
    return said


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that `Progress` sees, as its only element."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_what_was_said_half_a_second_ago_is_said_again_and_changes_no_estimate(
    clock: list[float], spoken: list[dict[str, Any]]
):
    progress = Progress(epochs=2, steps=20, images_per_step=8)
    progress.restart_clock()
    clock[0] += 1.0
    progress.step = 1
    progress.count(8)
    progress.say("train")
    assert spoken == [spoken[0]]
    assert (spoken[0]["images_per_second"], spoken[0]["eta_seconds"]) == (8.0, 19.0)

    clock[0] += 0.4
    progress.repeat_when_late()
    assert len(spoken) == 1
    clock[0] += 0.1
    progress.repeat_when_late()
    progress.repeat_when_late()
    assert spoken == [spoken[0]] * 2

    clock[0] += 0.5  # the second step took as long as the first, whatever was said meanwhile
    progress.step = 2
    progress.count(8)
    progress.say("train")
    assert (spoken[-1]["step"], spoken[-1]["images_per_second"]) == (2, 8.0)


def test_what_is_left_are_steps_and_validations_and_the_evaluation_at_the_end(
    clock: list[float], spoken: list[dict[str, Any]]
):
    progress = Progress(epochs=3, steps=30, images_per_step=8, final_validations=2.5)

    def left(phase: lines.Phase) -> float | None:
        progress.say(phase)
        eta: float | None = spoken[-1]["eta_seconds"]
        return eta

    progress.restart_clock()
    assert left("train") is None
    clock[0] += 10.0
    progress.step = 10
    progress.count(80)
    assert left("train") == 20.0
    progress.restart_clock()
    assert left("validate") == 20.0  # nobody knows how long one takes
    clock[0] += 4.0
    progress.validated, progress.validation_seconds = 1, 4.0
    assert left("train") == 20.0 + 2 * 4.0 + 2.5 * 4.0
    assert left("validate") == 38.0
    clock[0] += 3.0
    assert left("validate") == 35.0  # a second of this one, another one, and the end
    clock[0] += 3.0
    assert left("validate") == 34.0  # it takes longer than the first one did
    progress.validated = 2
    assert left("test") == 10.0  # where training ends before its last epoch, its other epochs never come
    clock[0] += 4.0
    assert left("test") == 6.0
    clock[0] += 7.0
    assert left("test") == 0.0


def test_a_run_foresees_its_validations_and_its_end(layout: Layout, new_job, here, monkeypatch: pytest.MonkeyPatch):
    write_dataset(layout, {"train": squares(96, seed=0), "val": squares(30, seed=1), "test": squares(60, seed=2)})
    validate = Loop._validate

    def slow(loop: Loop) -> dict[str, float]:
        time.sleep(1.0)
        return validate(loop)

    monkeypatch.setattr(Loop, "_validate", slow)
    said = [line["data"] for line in here(new_job("foreseen", epochs=2)) if line["type"] == "progress"]
    trained = [line["eta_seconds"] for line in said if line["phase"] == "train" and line["epoch"] == 2]
    assert min(trained) >= 1 + 3  # one more of 30 images; and of these and 60 others, three as long


def test_a_step_that_takes_seconds_is_spoken_of_meanwhile(
    layout: Layout, new_job, here, monkeypatch: pytest.MonkeyPatch
):
    """The third step of five waits for three lines in which the run is where it was."""
    write_dataset(layout, {"train": squares(210, seed=0), "test": squares(60, seed=1)})
    said, meanwhile, emit, take = [], threading.Event(), lines.emit, Loop._take
    threads: set[str] = set()

    def heard(kind, data):
        said.append(data)
        if [line["step"] for line in said].count(2) > 3:
            threads.add(threading.current_thread().name)
            meanwhile.set()
        emit(kind, data)

    def slow(loop, step):
        if loop.state.step == 2:
            assert meanwhile.wait(30)
        return take(loop, step)

    monkeypatch.setattr(lines, "emit", heard)
    monkeypatch.setattr(Loop, "_take", slow)
    here(new_job("slow", epochs=1))
    assert "progress" in threads
    assert all(line["phase"] == "train" for line in said if line["step"] == 2)
    steps = [line["step"] for line in said if line["phase"] == "train"]
    assert steps == sorted(steps)
    assert all(each.name != "progress" for each in threading.enumerate())
