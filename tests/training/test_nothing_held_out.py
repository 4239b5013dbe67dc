"""Trainings that learn from all of train: nothing is held out, so nothing is chosen, stopped or calibrated by it."""

import csv
import json
import signal

import numpy as np
import pytest
from job_processes import finish as finish_process
from job_processes import of
from squares import squares, write_dataset
from trainer_kit import SPLITS, after_checkpoints, finish, order, trainer

from models import golden, probes, runtime
from models.manifest import Manifest
from models.recipes import RECIPES, RecipeError, override, resolve
from store import artifacts
from store.layout import Layout
from worker.job_process import DONE, JobRefused
from worker.trainer import evaluate
from worker.trainer.data import Reading, read_training_data
from worker.trainer.loop import Loop
from worker.trainer.steps import Step

ALL = {"val_fraction": 0, "keep": "last", "ema_decay": 0.9, "lr": 0.01}


def test_all_of_train_is_learned_from_and_the_test_images_are_looked_at_once(
    layout: Layout, new_job, here, monkeypatch: pytest.MonkeyPatch
):
    write_dataset(layout, SPLITS)
    job, looked, judge = new_job("all", **{**ALL, "ema_decay": None, "lr": 0.05}), [], evaluate.logits

    def looking(compute, images, **more):
        looked.append(len(images))
        return judge(compute, images, **more)

    monkeypatch.setattr(evaluate, "logits", looking)
    said = here(job)
    assert [count for count in looked if count] == [len(SPLITS["test"][1])]
    epochs = of(said, "epoch")
    assert [(epoch["val"], epoch["best"]) for epoch in epochs] == [(None, False)] * 3
    assert of(said, "checkpoint")[-1]["step"] == 3 * (len(SPLITS["train"][1]) // 16)
    trained = [line["eta_seconds"] for line in of(said, "progress") if line["phase"] == "train"]
    assert trained[-1] == 0.0
    assert {line["eta_seconds"] for line in of(said, "progress") if line["phase"] == "test"} == {None}

    (result,) = of(said, "result")
    metrics = result["metrics"]
    assert (metrics["split"], metrics["ended"], metrics["total"]) == ("test", "epochs", 60)
    assert (metrics["kept_epoch"], metrics["best_epoch"]) == (3, None)
    assert (metrics["val_top1"], metrics["val_loss"], metrics["temperature"]) == (None, None, 1.0)
    assert metrics["top1"] > 0.5
    assert metrics["ece"] == metrics["ece_uncalibrated"]

    model = job / "claim-1" / "model"
    served, manifest = runtime.load(model, "cpu"), Manifest.read(model)
    assert (manifest.calibration, manifest.calibration_sha256) == (None, None)
    assert probes.read(model, manifest) is None
    images, _ = golden.read(model, manifest)
    assert set(map(bytes, images)) <= set(map(bytes, SPLITS["train"][0]))
    assert golden.check(served, model) <= 1e-3
    assert int((served.logits(SPLITS["test"][0]).argmax(1) == SPLITS["test"][1]).sum()) == metrics["correct"]

    made = artifacts.place(job / "claim-1")
    with (made / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["val_loss"], row["val_top1"], row["best"]) for row in rows] == [("", "", "False")] * 3
    assert [float(row["train_top1"]) for row in rows] == [epoch["train"]["top1"] for epoch in epochs]
    assert json.loads((made / "metrics.json").read_text())["history"] == epochs
    assert (made / "curves.png").exists()


def test_the_data_are_all_of_train_and_no_image_else(layout: Layout):
    dataset = write_dataset(layout, SPLITS)
    recipe = resolve("fashion-mnist-small", {"val_fraction": 0, "keep": "last"})
    found = read_training_data(layout.dataset(dataset.id), dataset, recipe, Reading(between=lambda: None))
    assert (len(found.train), len(found.val)) == (len(SPLITS["train"][1]), 0)
    assert isinstance(found.train.pixels, np.ndarray)
    np.testing.assert_array_equal(found.train.pixels, SPLITS["train"][0])


def test_a_dataset_with_images_to_validate_on_is_validated_on_them(layout: Layout, new_job, here):
    write_dataset(layout, {**SPLITS, "val": squares(30, seed=2)})
    said = here(new_job("own", **ALL, epochs=2))
    assert [epoch["val"]["top1"] * 30 for epoch in of(said, "epoch")] == pytest.approx(
        [round(epoch["val"]["top1"] * 30) for epoch in of(said, "epoch")]
    )
    assert of(said, "result")[0]["metrics"]["temperature"] != 1


def test_a_killed_run_goes_on_to_the_same_bits_and_two_devices_learn_the_same(layout: Layout, new_job):
    write_dataset(layout, SPLITS)
    (code, said), killed = finish(new_job("whole", **ALL)), new_job("killed", **ALL, checkpoint_seconds=0)
    assert code == DONE
    with trainer(killed) as process:
        after_checkpoints(process, 17, signal.SIGKILL)  # in the second epoch
        assert process.wait() == -signal.SIGKILL
    assert finish(killed)[0] == DONE
    name = "model/weights.safetensors"
    weights = [(layout.job("whole") / "claim-1" / name), (killed / "claim-2" / name)]
    assert weights[0].read_bytes() == weights[1].read_bytes()

    code, pair = finish(new_job("pair", **ALL, devices=2))
    assert code == DONE
    one, two = ([epoch["train"]["loss"] for epoch in of(lines, "epoch")] for lines in (said, pair))
    assert one == pytest.approx(two, rel=1e-3)
    assert [epoch["val"] for epoch in of(pair, "epoch")] == [None] * 3


def test_an_end_on_the_way_keeps_what_was_learned_so_far(
    layout: Layout, new_job, here, monkeypatch: pytest.MonkeyPatch
):
    write_dataset(layout, SPLITS)
    job, take = new_job("finished", **ALL, epochs=500), Loop._take

    def taken(loop: Loop, step: Step) -> float:
        if loop.state.step == 5:  # in the first epoch
            order(job / "claim-1", version=1, finish=True)
        return take(loop, step)

    monkeypatch.setattr(Loop, "_take", taken)
    monkeypatch.setattr("worker.orders.LOOK_SECONDS", 0.0)
    said = here(job)
    metrics = of(said, "result")[0]["metrics"]
    assert (metrics["ended"], metrics["epochs"], metrics["kept_epoch"]) == ("finish", 1, 1)
    assert of(said, "checkpoint")[-1]["step"] < 13


def test_there_have_to_be_images_to_test_with(layout: Layout, new_job, here):
    write_dataset(layout, {"train": SPLITS["train"]})
    with pytest.raises(JobRefused) as caught:
        here(new_job("alone", **ALL))
    assert caught.value.code == "no_test_data"
    assert "val_fraction" in caught.value.hint


def test_outputs_that_are_no_numbers_make_no_model(layout: Layout, new_job, here, monkeypatch: pytest.MonkeyPatch):
    """Without a validation nobody else has looked at them."""
    write_dataset(layout, SPLITS)
    job = new_job("wild", **ALL, epochs=1)
    monkeypatch.setattr(evaluate, "logits", lambda _, images, **more: np.full((len(images), 3), np.inf, np.float32))
    with pytest.raises(JobRefused) as caught:
        here(job)
    assert caught.value.code == "loss_not_finite"
    assert not (job / "claim-1" / "model").exists()


def test_an_evaluation_on_the_same_dataset_fits_no_temperature_on_what_was_learned(
    layout: Layout, new_job, here, tmp_path
):
    write_dataset(layout, SPLITS)
    here(new_job("learned", **ALL, epochs=1))
    version = layout.models / "squares" / "1"
    version.parent.mkdir(parents=True)
    (layout.job("learned") / "claim-1" / "model").rename(version)
    judging = layout.job("judging")
    judging.mkdir()
    spec = {"kind": "evaluate", "model": "squares@1", "dataset": "ds_squares", "split": "test"}
    (judging / "spec.json").write_text(json.dumps(spec))
    code, said = finish_process("worker.evaluator", judging)
    assert code == DONE
    metrics = of(said, "result")[0]["metrics"]
    assert (metrics["temperature"], metrics["temperature_from"]) == (1.0, None)


def test_what_goes_by_held_out_images_is_refused_when_none_are():
    assert RECIPES["d2l-fashion-mnist"].val_fraction == 0
    for name, value in (("patience", 3), ("target_accuracy", 0.9), ("keep", "best")):
        with pytest.raises(RecipeError, match=r"val_fraction 0 holds none out") as caught:
            resolve("d2l-fashion-mnist", {name: value})
        assert "val_fraction=0.05" in caught.value.hint
    with pytest.raises(ValueError, match="val_fraction 0 holds none out"):  # as a running job is changed
        override(RECIPES["d2l-fashion-mnist"], {"patience": 3})
    assert override(RECIPES["d2l-fashion-mnist"], {"epochs": 3}).epochs == 3
