"""A session with scenarios ends as `make chaos` does: its last line is one JSON object with every figure."""

from collections.abc import Callable
from typing import Any

import orjson
import pytest
from run import summary
from scenarios import TEST_SEED

_FIGURES: dict[str, dict[str, Any]] = {}


@pytest.fixture
def keep_figures() -> Callable[[str, dict[str, Any]], None]:
    """Put a scenario's figures down for the last line."""
    return _FIGURES.__setitem__


def pytest_unconfigure() -> None:
    if _FIGURES:
        print("\n" + orjson.dumps(summary("short", TEST_SEED, _FIGURES)).decode())
