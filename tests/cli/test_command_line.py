"""The command line: flags, words, exit codes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from running import RESNETD, environment
from typer.testing import CliRunner

from resnetd.commands import output
from resnetd.commands.classify import MAX_BYTES, MAX_FILES, batches
from resnetd.commands.follow import line
from resnetd.commands.keys import ScopeName
from resnetd.commands.options import flag, parse_setting, read_settings, server_of, variable, with_settings
from resnetd.errors import Problem, Refused
from store.keys import KeyRing, Scope
from store.layout import Layout
from store.settings import Settings


def resnetd(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [RESNETD, *arguments], env=environment(**env), capture_output=True, text=True, timeout=60, check=False
    )


def given(*arguments: str, env: dict[str, str] | None = None) -> Settings:
    """The settings that a starting command gets from these flags."""
    got: list[Settings] = []
    command = typer.Typer()
    command.command()(with_settings(got.append))
    clean = {name: None for name in os.environ if name.startswith(("RESNETD_", "REDIS_"))}
    ended = CliRunner().invoke(command, [*arguments], env={**clean, **(env or {})})
    assert ended.exit_code == 0, ended.output
    return got[0]


OTHER_VALUES = {
    "data": "/elsewhere",
    "host": "127.0.0.2",
    "redis_url": "redis://r/0",
    "device": "cpu",
    "model": "other",
    "log_level": "DEBUG",
    "precision": "exact",
    "runtime": "eager",
    "batching": "other=7/2.5",
}


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_a_flag_and_a_variable_and_the_flag_wins(name):
    value = OTHER_VALUES.get(name, "7")
    field = Settings.model_fields[name]
    assert str(getattr(given(flag(name), value), name)) in (value, f"{value}.0")
    assert str(getattr(given(env={variable(name, field): value}), name)) in (value, f"{value}.0")
    other = "3" if value == "7" else value + "x"
    assert str(getattr(given(flag(name), value, env={variable(name, field): other}), name)) in (value, f"{value}.0")


def test_without_flags_and_variables_the_defaults_hold():
    assert given() == Settings.model_construct()
    assert given().data == Path("var")


def test_a_setting_out_of_range_is_refused_by_its_names():
    with pytest.raises(Refused, match=r"RESNETD_PORT \(--port\): .*65535"):
        read_settings({"port": 70_000})
    ended = resnetd("up", "--max-engines", "0")
    assert ended.returncode == 1
    assert "RESNETD_MAX_ENGINES (--max-engines)" in ended.stderr


@pytest.mark.parametrize("value", ["gpu", "cuda:", "cuda:01", "cuda:x", "mps", "CPU", ""])
def test_a_device_that_is_none_is_refused_and_the_allowed_ones_are_told(value):
    with pytest.raises(
        Refused, match=r"^RESNETD_DEVICE \(--device\): Input should be auto, cpu, cuda or cuda:N, as in "
    ):
        read_settings({"device": value})


@pytest.mark.parametrize("value", ["auto", "cpu", "cuda", "cuda:0", "cuda:15"])
def test_a_device_may_be(value):
    assert read_settings({"device": value}).device == value


@pytest.mark.parametrize("value", ["debug", "Warning", "ERROR"])
def test_a_log_level_may_be_written_in_any_case(value):
    assert given("--log-level", value).log_level == value.upper()
    assert given(env={"RESNETD_LOG_LEVEL": value}).log_level == value.upper()


@pytest.mark.parametrize(
    ("option", "name", "value", "allowed"),
    [
        ("--log-level", "RESNETD_LOG_LEVEL", "foo", "'DEBUG', 'INFO', 'WARNING' or 'ERROR'"),
        ("--device", "RESNETD_DEVICE", "gpu", "auto, cpu, cuda or cuda:N, as in cuda:0"),
        ("--precision", "RESNETD_PRECISION", "fp8", "'exact', 'bf16' or 'fastest'"),
    ],
)
def test_a_start_with_a_wrong_word_is_refused_by_flag_and_by_variable(option, name, value, allowed, tmp_path):
    data = ("--data", str(tmp_path / "var"))
    for ended in (resnetd("up", *data, option, value), resnetd("up", *data, **{name: value})):
        assert ended.returncode == 1
        assert f"{name} ({option}): Input should be {allowed}, not '{value}'." in " ".join(ended.stderr.split())
        assert "Traceback" not in ended.stderr
    assert not (tmp_path / "var").exists()


@pytest.mark.parametrize(
    ("variables", "server"),
    [
        ({}, "http://127.0.0.1:8000"),
        ({"RESNETD_PORT": "9000"}, "http://127.0.0.1:9000"),
        ({"RESNETD_HOST": "cats.internal"}, "http://cats.internal:8000"),
        ({"RESNETD_HOST": "0.0.0.0", "RESNETD_PORT": "80"}, "http://127.0.0.1:80"),
        ({"RESNETD_HOST": "::"}, "http://[::1]:8000"),
        ({"RESNETD_HOST": "", "RESNETD_PORT": ""}, "http://127.0.0.1:8000"),
        ({"RESNETD_HOST": "::1", "RESNETD_PORT": "0"}, "http://[::1]:8000"),
    ],
)
def test_clients_ask_where_a_server_with_the_same_variables_listens(variables, server):
    assert server_of(variables) == server


def test_it_starts_in_well_under_a_second_of_computing():
    began = os.times()
    assert resnetd("--version").stdout.strip()
    ended = os.times()
    assert ended.children_user + ended.children_system - began.children_user - began.children_system < 1.0


def test_where_nobody_answers_it_says_how_to_start_a_server():
    for ended in (
        resnetd("status", "--server", "http://127.0.0.1:9", RESNETD_PORT="7"),
        resnetd("status", RESNETD_SERVER="http://127.0.0.1:9", RESNETD_PORT="7"),
        resnetd("status", RESNETD_PORT="9"),
    ):
        assert ended.returncode == 1
        assert "No answer from http://127.0.0.1:9:" in ended.stderr
    assert "`resnetd up`" in ended.stderr
    assert ended.stdout == ""


def test_a_file_that_is_not_there_is_a_wrong_command_line():
    ended = resnetd("classify", "/nowhere/cat.jpg")
    assert ended.returncode == 2


def test_a_pipe_that_nobody_reads_ends_it_quietly():
    command = [sys.executable, "-c", "from resnetd.cli import main; main()", "up", "--help"]
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert b"Traceback" not in process.stderr.read()
    process.stderr.close()
    process.wait()


def test_a_key_is_made_known_listed_without_its_secret_and_revoked(tmp_path):
    made = resnetd("keys", "create", "--scope", "train", "--name", "ci", "--data", str(tmp_path))
    secret = made.stdout.strip()
    layout = Layout(tmp_path)
    found = KeyRing(layout).find(secret)
    assert found is not None
    assert (found.scope, found.name) == (Scope.TRAIN, "ci")
    assert secret not in layout.keys.read_text()

    listed = resnetd("keys", "list", "--json", RESNETD_DATA=str(tmp_path))
    (entry,) = json.loads(listed.stdout)["data"]
    assert entry == {"id": found.id, "scope": "train", "name": "ci", "created_at": found.created_at}

    assert resnetd("keys", "revoke", found.id, "--data", str(tmp_path)).returncode == 0
    assert KeyRing(layout).find(secret) is None
    again = resnetd("keys", "revoke", found.id, "--data", str(tmp_path))
    assert again.returncode == 1
    assert "no key" in again.stderr


def test_a_key_may_be_made_for_every_scope_there_is():
    assert [each.value for each in ScopeName] == [each.value for each in Scope]


def test_an_unknown_scope_is_a_wrong_command_line():
    ended = resnetd("keys", "create", "--scope", "root")
    assert ended.returncode == 2
    assert "predict" in ended.stderr


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("epochs=2", ("epochs", 2)),
        ("lr=0.1", ("lr", 0.1)),
        ("precision=bf16", ("precision", "bf16")),
        ("ema_decay=null", ("ema_decay", None)),
        ("deterministic=true", ("deterministic", True)),
        ("mean=[0.5]", ("mean", [0.5])),
        ("network=a=b", ("network", "a=b")),
    ],
)
def test_an_override_is_json_where_it_can_be_and_else_text(text, value):
    assert parse_setting(text) == value


@pytest.mark.parametrize("text", ["epochs", "=2", ""])
def test_an_override_without_key_and_value_is_refused(text):
    with pytest.raises(Refused, match="KEY=VALUE"):
        parse_setting(text)


def test_files_are_sent_in_order_in_requests_of_bounded_size(tmp_path):
    sizes = [10] * (MAX_FILES + 1) + [MAX_BYTES - 5, 10, MAX_BYTES + 1, 1]
    files = []
    for number, size in enumerate(sizes):
        file = tmp_path / f"{number}.png"
        with file.open("wb") as content:
            content.truncate(size)
        files.append(file)
    found = list(batches(files))
    assert [file for batch in found for file in batch] == files
    for batch in found:
        assert 1 <= len(batch) <= MAX_FILES
        assert len(batch) == 1 or sum(file.stat().st_size for file in batch) <= MAX_BYTES


def test_events_are_told_in_sentences():
    epoch = {"epoch": 3, "train": {"loss": 0.5, "top1": 0.9}, "val": {"loss": 0.4, "top1": 0.91}, "seconds": 2.0}
    assert line("epoch", epoch) == (
        "epoch 3  train loss 0.5000  train top-1 90.00%  val loss 0.4000  val top-1 91.00%  2.0 s"
    )
    assert line("evaluation", {"split": "test", "top1": 0.9}) == "test: top1 0.9000"
    assert line("warning", {"message": "slow disk"}) == "slow disk"
    assert line("queued", {}) == "queued"


def test_a_problem_is_told_as_title_detail_hint_and_each_further_field(capsys):
    errors = [{"pointer": "#/a", "detail": "one"}, {"pointer": "#/b", "detail": "two"}]
    problem = Problem(500, "internal_error", "Internal Server Error", "It failed.", "Look.", "req_1", errors)
    output.failure(problem)
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.splitlines() == [
        "Internal Server Error (500, internal_error)",
        "  It failed.",
        "  #/b: two",
        "  Hint: Look.",
        "  Request id: req_1",
    ]


def test_a_pipe_gets_whole_cells_with_tabs_between_and_an_empty_list_nothing(capsys):
    output.table(("id", "note"), [("x" * 300, None), (1, "[red]")])
    output.table(("id",), [])
    assert capsys.readouterr().out == "x" * 300 + "\t\n1\t[red]\n"


def test_what_a_server_tells_steers_no_terminal_and_forges_no_row(capsys):
    name = "cat\x1b]0;title\x07\tdog\nbird é猫"
    told = r"cat\x1b]0;title\x07\tdog\nbird é猫"
    output.table(("class", "images"), [(name, 3)])
    output.fields({"classes": name})
    output.line("evt_1", name)
    assert capsys.readouterr().out.splitlines() == [f"{told}\t3", f"classes  {told}", f"evt_1\t{told}"]
    output.note("first\nsecond \x1b[2J")
    assert capsys.readouterr().err.splitlines() == ["first", r"second \x1b[2J"]


def test_metrics_are_told_by_their_first_four():
    values = {"top1": 0.5, "ece": 0.04, "confusion": [[1]], "top5": None}
    assert output.metrics(values) == "top1 0.5000, ece 0.0400"
    assert output.metrics(None) == ""
