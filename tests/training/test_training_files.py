"""What a training leaves for download beside its model."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from squares import CLASSES, squares, write_dataset

from jobs.answers import Claim
from jobs.model import Kind
from models import runtime
from models.recipes import Recipe, resolve
from store import artifacts
from store.datasets import Dataset
from store.layout import Layout
from worker.job_arguments import JobArguments
from worker.job_process import Stop
from worker.publish import publish
from worker.trainer import files, metrics, optimizer
from worker.trainer.data import Reading, read_training_data
from worker.trainer.train import train

DRAWINGS = ("curves", "learning_rate", "confusion", "reliability", "mistakes")


def calibrated(layout: Layout, run_dir: Path) -> tuple[float, metrics.Logits]:
    """The temperature that suits the model's validation images best, and its logits of the test images."""
    model = runtime.load(run_dir / "claim-1" / "model", "cpu")
    recipe = resolve_spec(run_dir)
    folder = layout.dataset("ds_squares")
    val = read_training_data(folder, Dataset.read(folder), recipe, Reading(between=lambda: None)).val
    assert isinstance(val.pixels, np.ndarray)
    return metrics.fit_temperature(model.logits(val.pixels), val.labels), model.logits(squares(30, seed=1)[0])


def resolve_spec(run_dir: Path) -> Recipe:
    spec = json.loads((run_dir / "spec.json").read_text())
    return resolve(spec["recipe"], spec["overrides"])


def test_a_training_leaves_its_curves_plan_and_evaluation_and_its_job_names_them(layout, new_job, capfdbinary):
    write_dataset(layout, {"train": squares(90, seed=0), "test": squares(30, seed=1)})
    run_dir = new_job("files", epochs=2)
    train(JobArguments(run_dir=run_dir, claim=1, data_dir=layout.root, device="cpu"), Stop())
    said = [json.loads(line) for line in capfdbinary.readouterr().out.splitlines()]
    result = next(line["data"] for line in said if line["type"] == "result")
    epochs = [line["data"] for line in said if line["type"] == "epoch"]
    assert not [line for line in said if line["type"] == "warning"]

    made = artifacts.place(run_dir / "claim-1")
    drawings = {f"{name}.{kind}" for name in DRAWINGS for kind in ("svg", "png")}
    others = {"report.json", "metrics.json", "metrics.csv", "per_class.csv", "confusion.csv"}
    assert {path.name for path in made.iterdir()} == drawings | others
    for name in DRAWINGS:
        with Image.open(made / f"{name}.png") as image:
            assert image.width > 300

    with (made / "metrics.csv").open(newline="") as file:
        rows = [{key: float(value) for key, value in row.items() if key != "best"} for row in csv.DictReader(file)]
    assert [row["epoch"] for row in rows] == [1, 2]
    for row, epoch in zip(rows, epochs, strict=True):
        assert (row["train_loss"], row["val_top1"]) == (epoch["train"]["loss"], epoch["val"]["top1"])
    assert json.loads((made / "metrics.json").read_text()) == {**result["metrics"], "history": epochs}
    report = json.loads((made / "report.json").read_text())
    assert report["metrics"]["correct"] == result["metrics"]["correct"] == np.trace(report["metrics"]["confusion"])
    with (made / "confusion.csv").open(newline="") as file:
        head, *rows = csv.reader(file)
    assert (head, [row[0] for row in rows]) == (["true", *CLASSES], list(CLASSES))
    assert [[int(count) for count in row[1:]] for row in rows] == report["metrics"]["confusion"]
    assert (report["model"]["name"], report["split"], report["classes"]) == ("squares", "test", list(CLASSES))

    figures, (temperature, logits) = result["metrics"], calibrated(layout, run_dir)
    labels = squares(30, seed=1)[1]
    assert figures["temperature"] == temperature != 1
    assert figures["ece"] == pytest.approx(metrics.ece(logits, labels, temperature))
    assert figures["ece_uncalibrated"] == pytest.approx(metrics.ece(logits, labels))

    spec = json.loads((run_dir / "spec.json").read_text())
    claim = Claim(job_id="files", kind=Kind.TRAIN, spec=spec, number=1)
    for _ in range(2):  # the second time, the first was ended by a crash
        outcome = publish(claim, layout, result)
        assert {each["name"] for each in outcome["artifacts"]} == drawings | others
        assert (outcome["claim"], outcome["model"]) == (1, "squares")


def test_the_plan_drawn_is_the_one_that_was_followed():
    recipe = resolve("mnist", {"epochs": 2, "lr": 0.1, "schedule": "constant", "warmup_epochs": 0})
    changes = [{"step": 4, "settings": {"lr": 0.2}}, {"step": 7, "settings": {"lr": 0.3, "epochs": 3}}]
    found = files.rates(recipe, changes, steps=range(10), steps_per_epoch=5)
    assert found == [0.1] * 4 + [0.2] * 3 + [0.3] * 3
    plan = resolve("mnist", {})
    planned = [optimizer.learning_rate(plan, step=step, steps_per_epoch=10) for step in (0, 75, 149)]
    assert files.rates(plan, [], steps=(0, 75, 149), steps_per_epoch=10) == planned
