"""The last line of a session with chaos scenarios, from the reports of their tests.

The scenarios may have run in several processes; the one that has all reports prints.
"""

from typing import Any

import orjson
import pytest

PROPERTY = "chaos"


class LastLine:
    """A plugin of pytest."""

    def __init__(self) -> None:
        self._summaries: list[dict[str, Any]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            self._summaries += [orjson.loads(str(text)) for name, text in report.user_properties if name == PROPERTY]

    def pytest_unconfigure(self) -> None:
        if self._summaries:
            scenarios = {name: figures for each in self._summaries for name, figures in each["scenarios"].items()}
            violations = sum(each["violations"] for each in self._summaries)
            whole = {**self._summaries[0], "scenarios": scenarios, "violations": violations}
            print("\n" + orjson.dumps(whole).decode())
