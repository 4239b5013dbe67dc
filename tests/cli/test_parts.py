"""The parts of `up`: what dies is started again, also when it cannot be for a while."""

import logging
import sys

from resnetd.parts import Part, reason


def test_a_part_that_cannot_be_started_now_is_no_end_of_the_others(caplog):
    part = Part("absent", ["/nonexistent/program"])
    with caplog.at_level(logging.ERROR):
        part.watch()
    assert part.process is None
    assert "a part could not be started" in caplog.text


def test_a_part_that_died_is_started_again_and_the_reason_is_logged(caplog):
    part = Part("short", [sys.executable, "-c", "import sys; sys.exit(7)"])
    part.start()
    part.process.wait()
    with caplog.at_level(logging.ERROR):
        part.watch()
    (record,) = caplog.records
    assert (record.died, record.reason) == ("short", "exit status 7")
    part._resume = 0.0
    part.watch()
    assert part.process.wait() == 7


def test_an_exit_status_is_told_in_words():
    assert [reason(-9), reason(3)] == ["ended by SIGKILL", "exit status 3"]
