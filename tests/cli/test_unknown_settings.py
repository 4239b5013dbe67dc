"""A variable that is called as ours are and that nobody reads is told at the start; the start goes on."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from running import environment

from store.settings import OTHER_VARIABLES, Settings, unknown_variables

ROOT = Path(__file__).resolve().parents[2]
STARTED = """
import sys
from resnetd import up
from store.settings import Settings

up.Parts.run = lambda *_, announce: print("started")
getattr(up, sys.argv[1])(Settings())
"""


def test_every_variable_that_the_code_names_is_known_and_every_known_one_is_named_there() -> None:
    rooms = ("app", "benchmarks", "jobs", "models", "resnetd", "store", "tests", "worker")
    lists = {ROOT / "store" / "settings.py", ROOT / "tests" / "test_docs.py"}
    named: set[str] = set()
    for room in rooms:
        for path in {path for depth in ("*", "*/*", "*/*/*") for path in (ROOT / room).glob(f"{depth}.py")} - lists:
            named |= set(re.findall(r'"(RESNETD_[A-Z_]+)"', path.read_text()))
    assert named >= OTHER_VARIABLES
    assert unknown_variables(dict.fromkeys(named, "")) == {}


def test_every_setting_is_known_in_capitals_and_in_small_letters() -> None:
    names = [f"RESNETD_{name.upper()}" for name in Settings.model_fields]
    assert unknown_variables(dict.fromkeys([*names, *(name.lower() for name in names), "REDIS_URL"], "")) == {}


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("PRECISON", "RESNETD_PRECISION"),
        ("MAX_ENGINE", "RESNETD_MAX_ENGINES"),
        ("LOGLEVEL", "RESNETD_LOG_LEVEL"),
        ("REDIS_URI", "REDIS_URL"),
        ("KEYS", "RESNETD_KEY"),
        ("QQQ", None),
    ],
)
def test_a_misspelt_one_is_told_with_the_nearest_name(written: str, meant: str | None) -> None:
    for name in (f"RESNETD_{written}", f"resnetd_{written.lower()}"):
        assert unknown_variables({name: "1", "PATH": "/bin", "MY_RESNETD_NOTE": ""}) == {name: meant}


@pytest.mark.parametrize("what", ["up", "serve", "work"])
def test_each_way_to_start_warns_of_it_without_its_value_and_starts(what: str, tmp_path: Path) -> None:
    where = {"RESNETD_DATA": str(tmp_path / "var"), "RESNETD_PORT": "0", "REDIS_URL": "redis://nobody:1/0"}
    env = environment(RESNETD_PRECISON="a secret", RESNETD_QQQ="", RESNETD_KEY="rn_1_2", **where)
    command = [sys.executable, "-c", STARTED, what]
    ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (0, "started\n"), ended.stderr
    assert '"RESNETD_PRECISON is no setting and changes nothing: did you mean RESNETD_PRECISION?"' in ended.stderr
    assert '"RESNETD_QQQ is no setting and changes nothing"' in ended.stderr
    assert ended.stderr.count("no setting") == 2
    assert "a secret" not in ended.stderr
