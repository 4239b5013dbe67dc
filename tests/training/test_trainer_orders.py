"""What is asked of a training while it runs: it is followed at the next step, and a kill changes nothing of it."""

import shutil
import signal
from typing import Any

import pytest
import torch
from job_processes import lines, of
from squares import squares, write_dataset
from torch import nn
from trainer_kit import SPLITS, finish, order, trainer

from models import checkpoint
from models.recipes import RECIPES
from store.layout import Layout
from worker.job_process import DONE
from worker.orders import Orders
from worker.trainer import loop
from worker.trainer.orders import ordered_end, take_settings, warn_of_late_orders
from worker.trainer.state import RunState

RECIPE = RECIPES["mnist"]


def test_new_settings_hold_from_a_step_on_and_a_run_killed_after_it_ends_with_the_same_bits(layout: Layout, new_job):
    write_dataset(layout, SPLITS)
    whole, copy = new_job("whole", epochs=200, checkpoint_seconds=0), layout.job("copy")
    said = []
    with trainer(whole) as process:
        for line in lines(process):
            said.append(line)
            saved = len(of(said, "checkpoint"))
            if line["type"] == "checkpoint" and saved == 2:
                order(whole / "claim-1", version=1, settings={"lr": 0.02, "epochs": 5})
            new = of(said, "log")
            if line["type"] == "checkpoint" and new and line["data"]["step"] > new[0]["step"] + 2 and not copy.exists():
                process.send_signal(signal.SIGSTOP)  # the run as it would lie there if it were killed now
                shutil.copytree(whole, copy)
                process.send_signal(signal.SIGCONT)
        assert process.wait() == DONE
    (changed,) = of(said, "log")
    assert changed["settings"] == {"lr": 0.02, "epochs": 5}
    assert changed["step"] in [line["step"] for line in of(said, "checkpoint")]
    assert len(of(said, "epoch")) == 5
    (result,) = of(said, "result")
    assert result["metrics"]["changes"] == [{"step": changed["step"], "settings": changed["settings"]}]

    order(copy / "claim-2", version=1, settings={"lr": 0.02, "epochs": 5})
    code, resumed = finish(copy, "--claim", "2")
    assert code == DONE
    assert of(resumed, "log")[0]["step"] > changed["step"]
    name = "model/weights.safetensors"
    assert (copy / "claim-2" / name).read_bytes() == (whole / "claim-1" / name).read_bytes()


def test_the_checkpoint_that_is_told_of_after_new_settings_holds_them_where_that_step_was_saved_before(
    layout: Layout, new_job, here, monkeypatch: pytest.MonkeyPatch
):
    write_dataset(layout, SPLITS)
    job = new_job("saved", epochs=1, checkpoint_seconds=0)
    told: list[tuple[int, dict[str, Any]]] = []

    def hear(name: str) -> None:
        if name == "checkpoint.said":
            newest = checkpoint.newest(job)
            assert newest is not None
            told.append((newest.step, newest.state["settings"]))
            if len(told) == 3:
                order(job / "claim-1", version=1, settings={"lr": 0.02})

    monkeypatch.setattr(loop, "point", hear)
    monkeypatch.setattr("worker.orders.LOOK_SECONDS", 0.0)
    here(job)
    assert told[:5] == [(1, {}), (2, {}), (3, {}), (3, {"lr": 0.02}), (4, {"lr": 0.02})]


def test_finish_keeps_the_best_epoch_so_far_and_a_checkpoint_is_written_when_it_is_asked_for(layout: Layout, new_job):
    write_dataset(layout, SPLITS)
    job = new_job("finished", epochs=500, checkpoint_seconds=3600)
    said = []
    with trainer(job) as process:
        for line in lines(process):
            said.append(line)
            if line["type"] == "epoch" and len(of(said, "epoch")) == 2:
                order(job / "claim-1", version=1, checkpoint=1)
            if line["type"] == "checkpoint" and "asked" in line["data"]:
                order(job / "claim-1", version=2, checkpoint=1, finish=True)
        assert process.wait() == DONE
    checkpoints = of(said, "checkpoint")
    assert [line["asked"] for line in checkpoints if "asked" in line] == [1]
    assert "asked" not in checkpoints[0]  # of the first epoch's end
    assert "asked" not in checkpoints[-1]
    metrics = of(said, "result")[0]["metrics"]
    assert metrics["ended"] == "finish"
    assert 2 <= metrics["epochs"] == len(of(said, "epoch")) < 500
    best = max(of(said, "epoch"), key=lambda epoch: (epoch["val"]["top1"], -epoch["val"]["loss"]))
    assert (metrics["kept_epoch"], metrics["val_top1"]) == (best["epoch"], best["val"]["top1"])


def test_finish_within_the_first_epoch_validates_what_there_is_and_keeps_it(layout: Layout, new_job):
    write_dataset(layout, {"train": squares(2000, seed=0), "test": squares(60, seed=1)})
    job = new_job("early", epochs=2, batch_size=1, checkpoint_seconds=0)
    said = []
    with trainer(job) as process:
        for line in lines(process):
            said.append(line)
            if line["type"] == "checkpoint" and len(of(said, "checkpoint")) == 1:
                order(job / "claim-1", version=1, finish=True)
        assert process.wait() == DONE
    (epoch,) = of(said, "epoch")
    metrics = of(said, "result")[0]["metrics"]
    assert (metrics["ended"], metrics["kept_epoch"], metrics["val_top1"]) == ("finish", 1, epoch["val"]["top1"])
    assert of(said, "checkpoint")[-1]["step"] < 1000


@pytest.fixture
def state() -> RunState:
    network = nn.Linear(1, 1)
    return RunState(network=network, optimizer=torch.optim.SGD(network.parameters()), average=None)


def test_finish_before_the_first_step_is_followed_after_it(layout: Layout, new_job, here):
    write_dataset(layout, SPLITS)
    job = new_job("at-once", epochs=500)
    order(job / "claim-1", version=1, finish=True)
    said = here(job)
    metrics = of(said, "result")[0]["metrics"]
    assert (metrics["ended"], metrics["epochs"]) == ("finish", 1)
    assert of(said, "checkpoint")[-1]["step"] == 1


def test_no_more_epochs_than_are_done_end_the_training(state: RunState):
    state.step, state.epoch = 70, 7
    assert ordered_end(RECIPE.model_copy(update={"epochs": 8}), state, Orders()) is None
    assert ordered_end(RECIPE.model_copy(update={"epochs": 7}), state, Orders()) == "epochs"


def test_settings_that_were_taken_back_are_the_recipes_again(state: RunState):
    faster = take_settings(RECIPE, state, Orders(settings={"lr": 0.5}))
    assert faster is not None
    assert faster.lr == 0.5
    assert take_settings(RECIPE, state, Orders(settings={"lr": 0.5})) is None  # nothing new
    assert take_settings(RECIPE, state, Orders()) == RECIPE
    assert [change["settings"] for change in state.changes] == [{"lr": 0.5}, {}]


def test_other_epochs_move_the_steps_of_the_learning_rate_in_proportion(state: RunState):
    shorter = take_settings(RECIPES["imagenet"], state, Orders(settings={"epochs": 30}))
    assert shorter is not None
    assert (shorter.epochs, shorter.step_epochs) == (30, (10, 20))


@pytest.mark.parametrize("settings", [{"lr": -1}, {"batch_size": 8}, {"epochs": "many"}])
def test_settings_that_do_not_fit_are_not_followed_and_said_so(state: RunState, settings: dict[str, Any], capsys):
    assert take_settings(RECIPE, state, Orders(settings=settings)) is None
    assert state.settings == {}
    assert "bad_settings" in capsys.readouterr().out


def test_orders_that_come_after_the_last_step_are_answered(state: RunState, capsys):
    warn_of_late_orders(state, None)
    warn_of_late_orders(state, Orders(version=1, finish=True))
    assert capsys.readouterr().out == ""
    warn_of_late_orders(state, Orders(settings={"lr": 1}))
    warn_of_late_orders(state, Orders(checkpoint=1))
    assert capsys.readouterr().out.count("too_late") == 2
