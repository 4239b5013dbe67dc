"""A session with scenarios ends as `make chaos` does: its last line is one JSON object with every figure."""

from collections.abc import Callable
from typing import Any

import orjson
import pytest
from last_line import PROPERTY
from run import summary
from scenarios import TEST_SEED


@pytest.fixture
def keep_figures(record_property: Callable[[str, object], None]) -> Callable[[str, dict[str, Any]], None]:
    """Put a scenario's figures down for the last line: in its test's report, which finds the process that prints."""

    def keep(name: str, figures: dict[str, Any]) -> None:
        record_property(PROPERTY, orjson.dumps(summary("short", TEST_SEED, {name: figures})).decode())

    return keep
