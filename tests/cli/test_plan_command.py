"""`resnetd plan`: what it asks, the table and the curve that it shows, and what it says where there is no plan."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted_server import Answer, Told, json_answer, server
from typer.testing import CliRunner

from resnetd.cli import app
from resnetd.commands.chart import area, resampled
from resnetd.commands.plan import duration
from resnetd.errors import Refused

PLAN = {
    "recipe": {"network": "cifar/resnet8", "epochs": 4, "batch_size": 128},
    "images": {"train": 58200, "val": 1800, "test": 10000},
    "parameters": 75002,
    "flops_per_image": 18290432,
    "steps_per_epoch": 454,
    "steps": 1816,
    "learning_rate": {"steps": [0, 454, 1815], "values": [0.0, 0.2, 0.0]},
    "device": {"worker": "bench-1", "name": "cpu of 2 threads", "type": "cpu"},
    "images_per_second": 2890.4,
    "eta_seconds": 86.1,
    "eta": {"load": 0.1, "train": 80.4, "validate": 1.2, "test": 4.4, "total": 86.1},
    "memory": {"peak_bytes": 512000000, "free_bytes": 21000000000, "method": "measured"},
    "largest_batch_size": 8192,
    "largest_batch": {"images": 8192, "method": "estimated", "bound_by": "recipe"},
    "measured": {"reason": None, "cached": True, "steps": 50, "batch_size": 128},
    "problems": [{"severity": "warning", "code": "no_test_split", "message": "no test split", "hint": "Add one."}],
}
BUSY = {
    **PLAN,
    **dict.fromkeys(("images_per_second", "eta_seconds", "eta", "memory", "largest_batch_size", "largest_batch")),
    "measured": {"reason": "device_busy", "cached": False},
    "problems": [],
}


def run(*arguments: str, answers: list[Answer], status: int = 0) -> tuple[str, str, Told]:
    command = ["plan", "ds_1", "--recipe", "fashion-mnist-small", *arguments]
    with server(*answers) as (client, told):
        ended = CliRunner().invoke(app, [*command, "--server", client.server])
    assert ended.exit_code == status, ended.output
    return ended.stdout, ended.stderr, told


def test_the_submission_of_the_training_is_what_is_planned():
    _, _, told = run("--set", "epochs=4", "--max-seconds", "60", answers=[json_answer(PLAN)])
    ((method, path, _, body),) = told.requests
    assert (method, path) == ("POST", "/v1/jobs/plan")
    assert json.loads(body) == {
        "kind": "train",
        "dataset": "ds_1",
        "recipe": "fashion-mnist-small",
        "overrides": {"epochs": 4},
        "max_seconds": 60.0,
    }


def test_the_plan_is_a_table_a_curve_and_the_problems():
    shown, _, _ = run(answers=[json_answer(PLAN)])
    for said in (
        "75,002",
        "58,200 train, 1,800 val, 10,000 test",
        "2,890.4, on 50 steps of 128 images, by an earlier plan",
        "86 s (load 0.1 s, train 80 s",
        "0.51 GB at the most (measured), 21.00 GB free",
        "the largest that fits is 8,192 (estimated, by recipe)",
        "warning\tno_test_split\tno test split\tAdd one.",
    ):
        assert said in shown
    assert "not measured" not in shown
    rows = re.findall("┤(.*)$", shown, re.MULTILINE)
    assert len(rows) == 6
    assert rows[0].strip()
    assert rows[0].index(rows[0].strip()) == pytest.approx(60 / 4, abs=2)  # the top of the triangle, after an epoch


def test_figures_that_are_missing_are_left_out_and_the_reason_is_told():
    shown, _, _ = run(answers=[json_answer(BUSY)])
    assert "not measured  a job, or another plan, has the worker's device" in shown
    assert "images/s" not in shown
    assert "takes" not in shown


def test_json_is_the_answer_itself():
    shown, _, _ = run("--json", answers=[json_answer(PLAN)])
    assert json.loads(shown) == PLAN


def test_the_curve_is_saved_as_svg(tmp_path):
    svg: Answer = lambda handler: handler.send(200, b"<svg/>", "image/svg+xml")  # noqa: E731 - one answer among others
    _, said, told = run("--svg", str(tmp_path / "lr.svg"), answers=[json_answer(PLAN), svg])
    assert (tmp_path / "lr.svg").read_bytes() == b"<svg/>"
    assert told.requests[1][2]["accept"] == "image/svg+xml"
    assert said == f"Saved {tmp_path / 'lr.svg'}\n"
    with server(json_answer(PLAN), svg) as (client, _):
        command = ["plan", "ds_1", "--recipe", "fashion-mnist-small", "--svg", str(tmp_path), "--server", client.server]
        refused = CliRunner().invoke(app, command).exception
    assert isinstance(refused, Refused)
    assert (refused.message, refused.hint) == (
        f"{tmp_path}: Is a directory.",
        "Name a file that can be written with --svg.",
    )


@given(st.lists(st.floats(0, 10), min_size=1, max_size=40), st.integers(1, 9))
@settings(deadline=None)
def test_a_column_is_as_high_as_its_value(heights, rows):
    lines = area(heights, rows=rows)
    assert [len(line) for line in lines] == [len(heights)] * rows
    top = max(heights)
    for column, height in enumerate(heights):
        eighths = sum(" ▁▂▃▄▅▆▇█".index(line[column]) for line in lines)
        assert eighths == (pytest.approx(8 * rows * height / top, abs=0.51) if top else 0)


def test_values_between_points_lie_on_the_lines():
    assert resampled([0, 10], [0.0, 1.0], 5) == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert resampled([0, 1, 100], [1.0, 0.0, 0.0], 3) == [1.0, 0.0, 0.0]
    assert resampled([0], [0.1], 3) == [0.1] * 3
    assert resampled([], [], 3) == []


def test_times_are_as_people_say_them():
    assert [duration(each) for each in (0.04, 9.96, 48.2, 700, 11_100)] == [
        "0.0 s",
        "10.0 s",
        "48 s",
        "12 min",
        "3 h 5 min",
    ]
