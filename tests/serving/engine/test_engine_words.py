"""What an engine says on its standard output, and what does not belong there."""

from pathlib import Path

import pytest
from serving_toys import engine_process, first_words

LOUD = """
import os, sys

class Loud:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print("printed by Python", flush=True)
            os.write(1, b"printed by C\\n")

sys.meta_path.insert(0, Loud())
"""


def test_what_libraries_print_is_logged_and_not_taken_for_the_engines_words(
    artifacts: list[Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sitecustomize.py").write_text(LOUD)
    with engine_process(artifacts[0], tmp_path / "engine.sock", PYTHONPATH=str(tmp_path)) as process:
        assert first_words(process)["state"] == "ready"
    assert {"printed by Python", "printed by C"} <= set(capfd.readouterr().err.splitlines())
