"""The temperature of the figures, where the model has none of its own."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from job_processes import finish, of
from mini_dataset import mini, write_mini

from models import runtime
from models.catalog import Catalog
from store.datasets import Dataset
from store.splits import open_split
from worker.evaluator import subject
from worker.evaluator.evaluating import _warn_of_learned
from worker.evaluator.predictions import Predictions
from worker.evaluator.subject import read_subject
from worker.job_process import DONE
from worker.trainer import metrics
from worker.trainer.hold_out import contents, stratified
from worker.trainer.pixels import prepared

EVALUATOR = "worker.evaluator"


def report(run_dir: Path, claim: int = 1) -> bytes:
    return (run_dir / f"claim-{claim}" / "artifacts" / "report.json").read_bytes()


@pytest.fixture(scope="module")
def uncalibrated(layout) -> str:
    """The model without a temperature, as one that was adopted; and the dataset `ds_val`, which has a val split."""
    write_mini(layout, "ds_val", part="t10k", fourth="val")
    folder = shutil.copytree(Catalog(layout.models).folder("mnist-residual", 1), layout.models / "uncalibrated" / "1")
    manifest = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**manifest, "calibration": None}))
    return "uncalibrated@1"


def test_a_model_without_a_temperature_is_calibrated_on_val_for_the_figures_alone(layout, new_job, uncalibrated):
    folder = Catalog(layout.models).folder("uncalibrated", 1)
    before = {path: path.read_bytes() for path in folder.glob("*.*")}
    run_dir = new_job("evaluate", model=uncalibrated, dataset="ds_val")
    code, said = finish(EVALUATOR, run_dir)
    assert code == DONE
    document = json.loads(report(run_dir))
    figures = document["metrics"]
    images, labels = mini("t10k")
    served = runtime.load(folder, "cpu")
    truth = np.array([served.manifest.classes.index(str(label)) for label in labels])
    logits = served.logits(images[..., None].copy())
    val, test = np.arange(1000) % 4 == 0, np.arange(1000) % 4 != 0
    temperature = metrics.fit_temperature(logits[val], truth[val])
    assert (figures["temperature_from"], figures["total"]) == ("val", 750)
    assert figures["temperature"] == pytest.approx(temperature, rel=1e-3)
    assert figures["temperature"] != 1
    assert figures["ece"] == pytest.approx(metrics.ece(logits[test], truth[test], temperature), abs=2e-3)
    assert figures["ece_uncalibrated"] == pytest.approx(metrics.ece(logits[test], truth[test]), abs=2e-3)
    assert figures["log_loss"] < figures["log_loss_uncalibrated"]
    chances = np.exp(metrics.log_softmax(logits[test]))
    wrong = chances.argmax(1) != truth[test]
    assert document["worst_mistakes"][0]["probability"] == pytest.approx(chances[wrong].max(), abs=1e-4)  # as served
    assert of(said, "progress")[-1]["total"] == 1000
    assert of(said, "evaluation")[0]["temperature_from"] == "val"
    assert b"temperature of val" in (run_dir / "claim-1" / "artifacts" / "reliability.svg").read_bytes()
    assert {path: path.read_bytes() for path in folder.glob("*.*")} == before

    resumed = new_job("evaluate", model=uncalibrated, dataset="ds_val")
    whole = Predictions(run_dir, run_dir / "claim-1", classes=10)
    whole.restore()
    assert whole.done == 1000
    judged = Predictions(resumed, resumed / "claim-1", classes=10)
    judged.add(whole.logits()[:750])
    judged.keep()
    code, said = finish(EVALUATOR, resumed)
    assert (code, of(said, "log")[0]["images"]) == (DONE, 750)
    assert report(resumed, claim=2) == report(run_dir)


@pytest.fixture(scope="module")
def untested(layout) -> Dataset:
    """A dataset of train and test alone."""
    return write_mini(layout, "ds_train", part="t10k", fourth="train")


def test_without_a_val_split_a_temperature_is_fitted_on_images_held_out_of_train(
    layout, new_job, uncalibrated, untested
):
    run_dir = new_job("evaluate", model=uncalibrated, dataset=untested.id)
    code, said = finish(EVALUATOR, run_dir)
    assert code == DONE
    figures = json.loads(report(run_dir))["metrics"]
    served = runtime.load(Catalog(layout.models).folder("uncalibrated", 1), "cpu")
    train = open_split(layout.dataset(untested.id), untested, "train")
    _, held = stratified(train.labels, contents(train, between=lambda: None), fraction=1)
    truth = np.array([served.manifest.classes.index(untested.classes[label]) for label in train.labels[held]])
    temperature = metrics.fit_temperature(served.logits(prepared(train, held, served.manifest.preprocessing)), truth)
    assert (figures["temperature_from"], figures["total"]) == ("train", 750)
    assert figures["temperature"] == pytest.approx(temperature, rel=1e-3)
    assert figures["log_loss"] < figures["log_loss_uncalibrated"]
    assert of(said, "progress")[-1]["total"] == 750 + len(held)
    assert b"temperature of train" in (run_dir / "claim-1" / "artifacts" / "reliability.svg").read_bytes()

    resumed = new_job("evaluate", model=uncalibrated, dataset=untested.id)
    whole = Predictions(run_dir, run_dir / "claim-1", classes=10)
    whole.restore()
    judged = Predictions(resumed, resumed / "claim-1", classes=10)
    judged.add(whole.logits()[:750])
    judged.keep()
    assert finish(EVALUATOR, resumed)[0] == DONE
    assert report(resumed, claim=2) == report(run_dir)


def test_few_images_of_train_are_enough_to_fit_on_and_those_of_fewer_are_among_them(
    layout, new_job, uncalibrated, untested, monkeypatch
):
    run_dir = new_job("evaluate", model=uncalibrated, dataset=untested.id)
    fitting = read_subject(run_dir, layout).fitting
    monkeypatch.setattr(subject, "_MOST_OF_TRAIN", 45)
    fewer = read_subject(run_dir, layout).fitting
    assert fitting is not None
    assert fewer is not None
    assert 40 <= len(fewer) <= 45
    assert set(fewer.rows) < set(fitting.rows)
    assert set(fewer.labels) == set(range(10))


def test_a_model_that_learned_from_the_dataset_has_no_temperature_of_its_train(layout, new_job, uncalibrated, untested):
    folder = shutil.copytree(Catalog(layout.models).folder("uncalibrated", 1), layout.models / "learned" / "1")
    manifest = json.loads((folder / "model.json").read_text())
    lineage = {**manifest["lineage"], "dataset_digest": untested.digest}
    (folder / "model.json").write_text(json.dumps({**manifest, "lineage": lineage}))
    assert read_subject(new_job("evaluate", model="learned@1", dataset=untested.id), layout).fitting is None


@pytest.mark.parametrize(("dataset", "split"), [("ds_train", "train"), ("ds_train", "test"), ("ds_val", "test")])
@pytest.mark.usefixtures("untested")
def test_no_temperature_is_fitted_on_what_is_evaluated(layout, new_job, uncalibrated, dataset, split):
    found = read_subject(new_job("evaluate", model=uncalibrated, dataset=dataset, split=split), layout)
    fitted = None if found.fitting is None else found.fitting.split.name
    assert fitted == {"train": None, "test": dataset.removeprefix("ds_")}[split]


def test_images_that_a_model_seems_to_have_learned_are_told(layout, new_job, uncalibrated, untested, capfdbinary):
    found = read_subject(new_job("evaluate", model=uncalibrated, dataset=untested.id), layout)
    right = np.eye(10, dtype=np.float32)
    _warn_of_learned(found, right[found.judged.labels], right[found.fitting.labels])
    assert not capfdbinary.readouterr().out
    wrong = right[(found.judged.labels + (np.arange(750) % 4 == 0)) % 10]
    _warn_of_learned(found, wrong, right[found.fitting.labels])
    said = json.loads(capfdbinary.readouterr().out)
    assert (said["type"], said["data"]["code"]) == ("warning", "temperature_of_learned_images")
    assert "74.9%" in said["data"]["message"]


@pytest.mark.parametrize(("dataset", "split"), [("ds_val", "val"), ("ds_mini", "test")])
def test_without_another_split_to_fit_a_temperature_on_there_is_none(new_job, uncalibrated, dataset, split):
    code, said = finish(EVALUATOR, new_job("evaluate", model=uncalibrated, dataset=dataset, split=split))
    figures = of(said, "result")[0]["metrics"]
    assert (code, figures["temperature"], figures["temperature_from"]) == (DONE, 1.0, None)
    assert figures["ece"] == figures["ece_uncalibrated"]
