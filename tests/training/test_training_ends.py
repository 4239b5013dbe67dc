"""When a training ends and why, which of its epochs have checkpoints, and what few images it can do with."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from job_processes import of
from squares import squares, write_dataset

import worker.trainer.train as training
from models import checkpoint
from models.manifest import NetworkSpec
from models.recipes import RECIPES, resolve
from store.layout import Layout
from worker.job_process import JobRefused
from worker.trainer import data, loop
from worker.trainer.distributed import World
from worker.trainer.fresh import fresh_state
from worker.trainer.loop import why_ended

SPLITS = {"train": squares(96, seed=0), "test": squares(30, seed=1)}
ENDLESS = RECIPES["mnist"].model_copy(update={"epochs": 1000})


def epochs(*top1: float, losses: list[float] | None = None) -> list[dict[str, Any]]:
    falling = losses or [1 / (i + 1) for i in range(len(top1))]
    return [{"val": {"top1": share, "loss": loss}} for share, loss in zip(top1, falling, strict=True)]


@pytest.mark.parametrize(
    ("changes", "top1", "expected"),
    [
        ({"epochs": 3}, [0.1, 0.2], None),
        ({"epochs": 3}, [0.1, 0.2, 0.1], "epochs"),
        ({"epochs": 2}, [0.1, 0.2, 0.3], "epochs"),  # fewer than are done were asked for on the way
        ({"patience": 2}, [0.5, 0.4], None),
        ({"patience": 2}, [0.5, 0.4, 0.4], "patience"),
        ({"patience": 2}, [0.5, 0.5, 0.5], "patience"),  # the loss falls, the accuracy is no better
        ({"patience": 2}, [0.5, 0.4, 0.6, 0.6], None),
        ({"patience": 2}, [0.5, 0.4, 0.6, 0.6, 0.6], "patience"),
        ({"patience": 1}, [0.0, 0.0], "patience"),
        ({"target_accuracy": 0.6}, [0.5, 0.59], None),
        ({"target_accuracy": 0.6}, [0.5, 0.6], "target_accuracy"),
        ({"target_accuracy": 0.6, "patience": 1}, [0.6, 0.6], "target_accuracy"),
        ({"epochs": 2, "patience": 1}, [0.6, 0.6], "patience"),
    ],
)
def test_why_a_training_is_over(changes: dict[str, Any], top1: list[float], expected: str | None):
    assert why_ended(ENDLESS.model_copy(update=changes), epochs(*top1)) == expected


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ({"epochs": 2}, "epochs"),
        ({"epochs": 500, "target_accuracy": 0.01}, "target_accuracy"),
        ({"epochs": 500, "max_seconds": 0.001}, "max_seconds"),
        ({"epochs": 500, "patience": 2, "lr": 1e-9}, "patience"),  # nothing is learned, so nothing gets better
    ],
)
def test_a_training_tells_why_it_ended(layout: Layout, new_job, here, overrides, reason):
    write_dataset(layout, SPLITS)
    said = here(new_job("ended", ema_decay=None, **overrides))
    metrics = of(said, "result")[0]["metrics"]
    assert metrics["ended"] == reason
    top1 = [epoch["val"]["top1"] for epoch in of(said, "epoch")]
    assert metrics["epochs"] == len(top1)
    if reason == "patience":
        assert len(top1) - 1 - top1.index(max(top1)) == 2
    else:
        assert len(top1) == (2 if reason == "epochs" else 1)


def test_an_epochs_end_has_no_checkpoint_while_the_last_is_younger_than_twenty_times_what_saving_took(
    layout: Layout, new_job, here, monkeypatch: pytest.MonkeyPatch
):
    """By a clock of the test: an epoch takes 8 seconds, a save one. The last epoch always has its checkpoint."""
    write_dataset(layout, SPLITS)
    now, save = [0.0], checkpoint.save

    def saved(*arguments: Any) -> Any:
        now[0] += 1
        return save(*arguments)

    def stepped(name: str) -> None:
        now[0] += 8 / 6 if name == "training.stepped" else 0

    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(loop, "point", stepped)
    monkeypatch.setattr(checkpoint, "save", saved)
    said = here(new_job("short", epochs=8, batch_size=12, val_fraction=0.25, checkpoint_seconds=3600))
    steps = [line["step"] for line in of(said, "checkpoint")]
    assert [step / 6 for step in steps] == [1, 4, 7, 8]


def test_an_epochs_end_has_a_checkpoint_where_saving_takes_next_to_no_time(
    layout: Layout, new_job, here, monkeypatch: pytest.MonkeyPatch
):
    write_dataset(layout, SPLITS)
    now = [0.0]

    def stepped(name: str) -> None:
        now[0] += 1 if name == "training.stepped" else 0

    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(loop, "point", stepped)
    said = here(new_job("long", epochs=3, batch_size=12, val_fraction=0.25, checkpoint_seconds=3600))
    assert [line["step"] for line in of(said, "checkpoint")] == [6, 12, 18]


@pytest.fixture
def timed(layout: Layout, new_job, here, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[dict[str, Any]]]:
    """Trains by a clock of the test: loading takes 10 s, each of an epoch's 6 steps 1 s, a validation 20 s, a save 2 s.

    `dies_at` is the step at which the first claim ends without a word, and another one goes on.
    """
    write_dataset(layout, SPLITS)
    now, dying = [0.0], [0]

    def taking(seconds: float, call: Callable[..., Any]) -> Callable[..., Any]:
        def taken(*arguments: Any, **named: Any) -> Any:
            now[0] += seconds
            return call(*arguments, **named)

        return taken

    def stepped(name: str) -> None:
        if name == "training.stepped":
            now[0] += 1
            dying[0] -= 1
            if dying[0] == 0:
                raise InterruptedError

    for module in (loop, training):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(loop, "point", stepped)
    monkeypatch.setattr(data, "read_training_data", taking(10, data.read_training_data))
    monkeypatch.setattr(loop.Loop, "_validate", taking(20, loop.Loop._validate))
    monkeypatch.setattr(checkpoint, "save", taking(2, checkpoint.save))

    def go(*, max_seconds: float, dies_at: int | None = None) -> list[dict[str, Any]]:
        small = {"batch_size": 12, "val_fraction": 0.25, "checkpoint_seconds": 3600}
        job = new_job("timed", epochs=50, max_seconds=max_seconds, **small)
        if dies_at is None:
            return here(job)
        dying[0] = dies_at
        with pytest.raises(InterruptedError):
            here(job)
        return here(job, claim=2)

    return go


@pytest.mark.parametrize(
    ("max_seconds", "steps"),
    [
        (12, 2),
        (36, 6),  # it is over with the validation, and no other step is taken
        (39, 7),  # after the first epoch's checkpoint
        (64, 12),  # the second epoch has none: the first one's is young
        (65, 13),
    ],
)
def test_max_seconds_are_of_the_whole_run_but_its_last_evaluation(timed, max_seconds: float, steps: int):
    said = timed(max_seconds=max_seconds)
    assert of(said, "checkpoint")[-1]["step"] == steps
    assert of(said, "result")[0]["metrics"]["ended"] == "max_seconds"


def test_max_seconds_are_counted_over_claims_without_what_was_lost(timed):
    """The first claim's checkpoint is of second 36, at step 6; the second one loads anew, and a step ends at 47."""
    said = timed(max_seconds=47, dies_at=9)
    assert [line["step"] for line in of(said, "checkpoint")] == [6, 7]


def test_a_checkpoint_that_does_not_tell_how_long_the_run_took_has_the_time_of_its_steps():
    recipe = resolve("fashion-mnist-small", {})
    spec = NetworkSpec(name=recipe.network, num_classes=3, in_channels=1)
    state, other = (fresh_state(spec, recipe, torch.device("cpu"), World()) for _ in range(2))
    state.elapsed, state.ran = 30.0, 50.0
    stored = state.checkpoint({})
    other.restore(stored)
    assert other.ran == 50.0
    stored.state.pop("ran")
    other.restore(stored)
    assert other.ran == 30.0


TINY = {"network": "torchvision/resnet18", "image_size": 32, "epochs": 1, "precision": "fp32"}


def test_few_images_are_learned_from_in_fewer_parts_so_that_none_is_one_image(layout: Layout, new_job, here):
    """Seven images in five parts would be three of one, from which this network does not learn."""
    pixels, labels = squares(9, seed=0)
    write_dataset(layout, {"train": (pixels[:7], labels[:7]), "val": (pixels, labels)})
    said = here(new_job("few", batch_size=16, accumulate=5, **TINY))
    assert of(said, "result")[0]["metrics"]["ended"] == "epochs"


def test_what_is_left_over_of_an_epoch_is_no_batch_of_one_image(layout: Layout, new_job, here):
    pixels, labels = squares(9, seed=0)
    write_dataset(layout, {"train": (pixels[:7], labels[:7]), "val": (pixels, labels)})
    said = here(new_job("odd", batch_size=3, **TINY))
    assert of(said, "checkpoint")[-1]["step"] == 2


def test_a_single_image_to_train_on_is_refused_where_no_network_learns_from_it(layout: Layout, new_job, here):
    pixels, labels = squares(9, seed=0)
    two = np.array([0, 3])  # of one class: one of them is held out
    write_dataset(layout, {"train": (pixels[two], labels[two])})
    with pytest.raises(JobRefused) as caught:
        here(new_job("lone", batch_size=16, **TINY))
    assert caught.value.code == "dataset_too_small"
    assert resolve("fashion-mnist-small", {"batch_size": 1})  # another network does
