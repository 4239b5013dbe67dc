"""A long step is heard of, one that hangs is not."""

import threading

import pytest

from worker import signs_of_life
from worker.signs_of_life import SignsOfLife


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signs_of_life, "_PERIOD", 0.001)


def test_a_step_that_takes_long_is_spoken_of_meanwhile_and_at_its_end():
    said, often = [], threading.Event()

    def say() -> None:
        said.append(threading.current_thread().name)
        if said.count("progress") >= 5:
            often.set()

    with SignsOfLife(say):
        assert often.wait(10)
    assert said[0] == said[-1] == "MainThread"
    assert all(each.name != "progress" for each in threading.enumerate())


def test_a_step_that_has_not_moved_for_long_falls_silent_until_it_moves_again():
    spoken = threading.Event()
    with SignsOfLife(spoken.set, patience=0.2) as alive:
        while spoken.wait(0.5):  # ends with half a second of silence
            spoken.clear()
        alive.moved()
        assert spoken.wait(10)


def test_what_breaks_off_has_no_last_word():
    said = []
    with pytest.raises(OSError, match="broken"), SignsOfLife(lambda: said.append(threading.current_thread().name)):
        raise OSError("broken")
    assert said.count("MainThread") == 1


def test_what_is_known_to_take_long_has_a_patience_of_its_own():
    spoken = threading.Event()
    with SignsOfLife(spoken.set, patience=0.01) as alive:
        with alive.patient(60.0):
            for _ in range(50):
                spoken.clear()
                assert spoken.wait(10)
        while spoken.wait(0.5):
            spoken.clear()
