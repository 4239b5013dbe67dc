"""`resnetd classify`: what it prints of many files, which go in several requests."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from scripted_server import Answer, json_answer, server
from typer.testing import CliRunner

from resnetd.cli import app
from resnetd.commands.classify import MAX_FILES
from resnetd.errors import Problem

TIMES = {"decode": 0.1, "queue": 0.0, "compute": 0.2, "total": 0.3}


def answer(files: int, *, version: int = 3) -> Answer:
    results = [{"index": index, "top_k": [], "warnings": [], "error": None} for index in range(files)]
    return json_answer({"model": "pets", "version": version, "results": results, "timings_ms": TIMES})


def all_bad(files: int) -> Answer:
    errors = [{"pointer": f"#/{index}", "detail": "This is no image."} for index in range(files)]
    return json_answer({"code": "unreadable_image", "detail": "", "errors": errors}, 422)


@pytest.fixture
def pictures(tmp_path: Path) -> list[str]:
    files = [tmp_path / f"{number}.png" for number in range(2 * MAX_FILES + 2)]
    for file in files:
        file.write_bytes(b"an image")
    return [str(file) for file in files]


def classify(pictures: list[str], *answers: Answer) -> tuple[list[dict[str, Any]], Result]:
    """The documents on standard output, a line each."""
    with server(*answers) as (client, _):
        ended = CliRunner().invoke(app, ["classify", *pictures, "--json", "--server", client.server])
    return [json.loads(line) for line in ended.stdout.splitlines()], ended


def spans(documents: list[dict[str, Any]]) -> list[tuple[int, int, int]]:
    """(version, first index, last index) of each document, in which no index is missing."""
    for each in documents:
        indices = [result["index"] for result in each["results"]]
        assert indices == list(range(indices[0], indices[-1] + 1))
    return [(each["version"], each["results"][0]["index"], each["results"][-1]["index"]) for each in documents]


def test_many_files_are_one_document_in_which_the_index_goes_on(pictures):
    documents, ended = classify(pictures, answer(64), answer(64), answer(2))
    assert (spans(documents), ended.exit_code) == ([(3, 0, 129)], 0)
    assert documents[0]["timings_ms"] == {"decode": 0.3, "queue": 0.0, "compute": 0.6, "total": 0.9}


def test_where_another_version_answers_another_document_begins_and_the_index_goes_on(pictures):
    documents, _ = classify(pictures, answer(64), answer(64, version=4), answer(2))
    assert spans(documents) == [(3, 0, 63), (4, 64, 127), (3, 128, 129)]


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_a_request_whose_files_are_all_bad_belongs_to_the_others(pictures, bad):
    answers = [answer(64), answer(64), answer(2)]
    answers[bad] = all_bad((64, 64, 2)[bad])
    documents, ended = classify(pictures, *answers)
    assert (spans(documents), documents[0]["model"], ended.exit_code) == ([(3, 0, 129)], "pets", 1)
    assert sum(result["error"] is not None for result in documents[0]["results"]) == (64, 64, 2)[bad]


def test_a_refusal_on_the_way_loses_nothing_that_was_answered_before(pictures):
    refused = json_answer({"code": "model_not_found", "detail": "It was deleted."}, 404)
    documents, ended = classify(pictures, answer(64), answer(64), refused)
    assert spans(documents) == [(3, 0, 127)]
    assert isinstance(ended.exception, Problem)
