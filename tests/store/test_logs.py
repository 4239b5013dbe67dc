"""A log line is one JSON object, whatever it tells of."""

import json
import logging
import sys
from pathlib import Path
from typing import Any

from store.logs import JsonFormatter


def line(**told: object) -> dict[str, Any]:
    record = logging.makeLogRecord({"name": "resnetd", "levelname": "ERROR", "msg": "it broke", **told})
    text = JsonFormatter("worker").format(record)
    assert "\n" not in text
    found: dict[str, Any] = json.loads(text)
    assert (found["part"], found["logger"], found["level"], found["message"]) == (
        "worker",
        "resnetd",
        "error",
        "it broke",
    )
    return found


def test_an_exception_is_a_field_with_its_traceback() -> None:
    try:
        raise ValueError("no such thing")
    except ValueError:
        told = line(exc_info=sys.exc_info())["exception"]
    assert told.startswith("Traceback (most recent call last):\n")
    assert told.endswith("ValueError: no such thing")
    assert "exception" not in line()


def test_what_only_a_laxer_json_holds_is_told_as_well() -> None:
    told = line(file="caf\udce9.zip", count=2**70, counts={1: "one", (2, 3): "no name"})
    assert (told["file"], told["count"], told["counts"]) == ("caf\udce9.zip", 2**70, {"1": "one"})


def test_extras_that_json_cannot_hold_are_told_as_text() -> None:
    told = line(folder=Path("/data"), error=ValueError("no"), seconds=0.5, some=[Path("a")])
    assert (told["folder"], told["error"], told["seconds"], told["some"]) == ("/data", "no", 0.5, ["a"])
