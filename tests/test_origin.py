"""Every record of a benchmark tells where its figures come from, and nothing of whose machine it was."""

import json

import pytest

from benchmarks.origin import ROOT, command, origin


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("--rounds=2", "--rounds=2"),
        ("cifar/resnet20", "cifar/resnet20"),
        ("model=16/2.5", "model=16/2.5"),
        ("../shared/data", "../shared/data"),
        (f"{ROOT}/benchmarks/records/a.json", "benchmarks/records/a.json"),
        (f"--record={ROOT}/a.json", "--record=a.json"),
        ("/home/ada/var", ".../var"),
        ("mnist:init=/home/ada/weights,/srv/b", "mnist:init=.../weights,.../b"),
        ("https://ada.example.org:8000/v1", "URL"),
        ("/home/ada/sets/photos", "RESNETD_TEST_DATA/photos"),
    ],
)
def test_a_command_is_told_without_hosts_and_absolute_paths(
    word: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESNETD_TEST_DATA", "/home/ada/sets")
    words = ["/home/ada/.venv/bin/python", "-m", "benchmarks.serve", word]
    assert command(words) == f"python -m benchmarks.serve {shown}"


def test_an_origin_has_the_command_the_machine_the_date_and_the_commit() -> None:
    found = origin()
    assert set(found) == {"command", "machine", "date", "commit"}
    assert set(found["machine"]) == {"cpu", "cores", "memory_gib", "gpu", "kernel", "python", "torch"}
    assert found["machine"]["cores"] >= 1
    assert found["machine"]["memory_gib"] > 0.1
    assert str(ROOT) not in json.dumps(found)
