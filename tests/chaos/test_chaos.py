"""The small form of `make chaos`: everything is hurt once, and the checker finds nothing."""

import asyncio

import pytest
from scenarios import SCENARIOS, TEST_SEED


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", [name for name, scenario in SCENARIOS.items() if scenario.short is not None])
def test_nothing_is_lost_doubled_or_lied_about(name, tmp_path, keep_figures):
    report = asyncio.run(SCENARIOS[name](tmp_path, seed=TEST_SEED, scale="short"))
    keep_figures(name, report.figures())
    assert report.violations == []
    assert sum(report.counts.values()) > 0
