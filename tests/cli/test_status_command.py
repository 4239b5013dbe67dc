"""`resnetd status`: what is ready, for people and for scripts."""

import json
import re

import pytest
from scripted_server import DEGRADED, NOT_READY, json_answer, server
from typer.testing import CliRunner

from resnetd.cli import app

READY = {
    "status": "ready",
    "not_ready": [],
    "parts": {"engine": {"ready": True, "reason": None, "model": "pets", "version": 3}},
}


@pytest.mark.parametrize(
    ("found", "status", "shown"),
    [
        (READY, 0, {"status  ready", "engine  ready (pets@3)"}),
        (
            DEGRADED,
            0,
            {
                "status  degraded",
                "not ready  worker",
                "engine  ready (pets@3)",
                "worker  not ready: no worker is connected",
            },
        ),
        (NOT_READY, 1, {"status  not_ready", "not ready  engine", "engine  not ready: it is being started"}),
    ],
    ids=["ready", "degraded", "not ready"],
)
def test_the_exit_status_says_whether_it_classifies_and_the_lines_what_is_missing(found, status, shown):
    answer = json_answer(found, 503 if status else 200)
    with server(answer, answer) as (client, told):
        told_people = CliRunner().invoke(app, ["status", "--server", client.server])
        told_scripts = CliRunner().invoke(app, ["status", "--json", "--server", client.server])
    assert [path for _, path, *_ in told.requests] == ["/readyz"] * 2
    assert (told_people.exit_code, told_scripts.exit_code) == (status, status)
    assert {re.sub(" {2,}", "  ", line) for line in told_people.stdout.splitlines()} == shown
    assert json.loads(told_scripts.stdout) == found
