"""Figures are what was measured."""

from pathlib import Path

import orjson
import pytest
from last_line import PROPERTY, LastLine
from run import summary
from scenarios import SCENARIOS
from scene import Report, percentiles, share, together
from table import PAGE, RECORDS, SHOWN, page, table


def test_the_page_shows_the_figures_of_the_last_runs():
    text = PAGE.read_text()
    assert page(text, table(RECORDS)) == text, "python tests/chaos/table.py --write"


def test_every_scenario_is_in_the_table_and_on_the_page():
    assert set(SHOWN) == set(SCENARIOS)
    assert [name for name in SCENARIOS if f"`{name}`" not in PAGE.read_text()] == []


def test_a_machine_is_told_in_words_as_in_older_records(tmp_path: Path):
    machine = {"cores": 2, "kernel": "Linux 6.1", "python": "3.11.7", "cpu": "EPYC", "gpu": None}
    for told in (machine, "2 cores, Linux 6.1, Python 3.11.7"):
        run = {"at": "2026-11-23T10:00:00+00:00", "jobs": 7, "violations": []}
        record = {"chaos": "long", "commit": "a6fe38f", "machine": told, "scenarios": {"kills": run}}
        (tmp_path / "2026-11-23-chaos-kills.json").write_bytes(orjson.dumps(record))
        assert "2026-11-23 10:00, a6fe38f, 2 cores, Linux 6.1, Python 3.11.7 |" in table(tmp_path)


def test_percentiles_are_those_of_the_nearest_rank():
    assert percentiles([float(n) for n in range(1, 201)]) == {"n": 200, "p50": 101.0, "p99": 198.0, "max": 200.0}
    assert percentiles([3.0]) == {"n": 1, "p50": 3.0, "p99": 3.0, "max": 3.0}
    assert percentiles([]) == {"n": 0}


def test_reports_of_several_stacks_add_up_and_keep_every_sample_and_violation():
    one, other = Report(), Report()
    one.counts["jobs"], other.counts["jobs"] = 2, 3
    one.sample("canary_s", 1.0)
    other.sample("canary_s", 3.0)
    other.violate("I1: lost")
    figures = together([one, other]).figures()
    assert (figures["jobs"], figures["canary_s"]["n"], figures["canary_s"]["max"]) == (5, 2, 3.0)
    assert figures["violations"] == ["I1: lost"]


def test_shares_differ_by_one_at_most():
    assert share(7, 3) == [3, 2, 2]


def test_scenarios_of_several_processes_end_in_one_line(capsys: pytest.CaptureFixture[str]):
    figures = {"kills": {"violations": []}, "sse": {"violations": ["I1: lost"]}}
    line = LastLine()
    for name, its in figures.items():
        kept = (PROPERTY, orjson.dumps(summary("short", 7, {name: its})).decode())
        for when in ("setup", "call", "teardown"):  # what is kept stands in the reports of the teardown too
            line.pytest_runtest_logreport(
                pytest.TestReport(name, ("", 0, ""), {}, "passed", None, when, user_properties=[kept])
            )
    line.pytest_unconfigure()
    assert orjson.loads(capsys.readouterr().out) == summary("short", 7, figures)
