"""The evaluator as its supervisor sees it, on real images and a model that is shipped."""

import csv
import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from job_processes import finish, lines, of, started
from mini_dataset import CLASSES, mini, write_mini
from PIL import Image
from samples import png

from models import runtime
from models.catalog import Catalog
from models.images import decode, prepare
from store.datasets import Dataset
from store.splits import open_split
from worker.evaluator.evaluating import _model
from worker.evaluator.predictions import Predictions
from worker.evaluator.subject import read_subject
from worker.job_process import DONE, REFUSED, STOPPED, JobRefused
from worker.trainer.pixels import prepared

MODEL = "mnist-residual@1"
SLOWER = "cifar10-resnet20@1"  # on grey 28×28 images, which have to become RGB of 32×32
CIFAR_CLASSES = ("ship", "truck", "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse")
EVALUATOR = "worker.evaluator"


def report(run_dir: Path, claim: int = 1) -> bytes:
    return (run_dir / f"claim-{claim}" / "artifacts" / "report.json").read_bytes()


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def as_served(layout, images: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """What the engine answers to these images sent as PNG files: probabilities, and the classes."""
    served = runtime.load(Catalog(layout.models).folder("mnist-residual", 1), "cpu")
    pixels = [
        prepare(decode(png(Image.fromarray(image)), max_pixels=10_000), served.manifest.preprocessing)[0]
        for image in images
    ]
    return runtime.probabilities(served.logits(np.stack(pixels)), served.manifest), served.manifest.classes


def test_the_figures_are_those_of_the_images_sent_to_be_classified(layout, new_job):
    run_dir = new_job("evaluate", model=MODEL, dataset="ds_mini", split="test")
    code, said = finish(EVALUATOR, run_dir)
    assert code == DONE
    (result,), document = of(said, "result"), json.loads(report(run_dir))
    images, labels = mini("t10k")
    probability, classes = as_served(layout, images)
    predicted = [classes[i] for i in probability.argmax(1)]
    correct = sum(guess == str(label) for guess, label in zip(predicted, labels, strict=True))

    figures = document["metrics"]
    assert (figures["correct"], figures["total"]) == (correct, 1000)
    assert figures["top1"] == correct / 1000
    assert classes != CLASSES
    assert document["classes"] == list(classes)
    truth = np.array([classes.index(str(label)) for label in labels])
    chances = probability[np.arange(1000), truth]
    assert figures["log_loss"] == pytest.approx(-np.log(chances).mean(), rel=1e-4)
    assert figures["brier"] == pytest.approx(((probability - np.eye(10)[truth]) ** 2).sum(1).mean(), rel=1e-4)
    best_five = np.argsort(-probability, 1)[:, :5]
    assert figures["top5"] == pytest.approx((best_five == truth[:, None]).any(1).mean(), abs=0.002)
    assert figures["temperature"] != 1
    assert figures["temperature_from"] == "manifest"
    assert figures["ece"] != figures["ece_uncalibrated"]
    assert [each["support"] for each in figures["per_class"]] == [100] * 10
    assert np.array(figures["confusion"]).sum(1).tolist() == [100] * 10
    assert sum(each["images"] for each in document["reliability"]) == 1000

    worst = document["worst_mistakes"]
    assert len(worst) == 25
    assert [each["probability"] for each in worst] == sorted((each["probability"] for each in worst), reverse=True)
    surest = max(probability[i].max() for i in range(1000) if predicted[i] != str(labels[i]))
    assert worst[0]["probability"] == pytest.approx(surest, abs=1e-4)
    for each in worst:
        assert each["label"] == str(labels[each["index"]]) != each["predicted"] == predicted[each["index"]]

    assert result["metrics"]["images_per_second"] > 0
    assert {**result["metrics"], "images_per_second": 0} == {**figures, "split": "test", "images_per_second": 0}
    (event,) = of(said, "evaluation")
    assert event["top1"] == figures["top1"]
    last = of(said, "progress")[-1]
    assert {"phase", "done", "total", "fraction", "images_per_second", "eta_seconds"} == set(last)
    assert (last["done"], last["total"], last["fraction"]) == (1000, 1000, 1.0)
    made = run_dir / "claim-1" / "artifacts"
    drawings = {f"{name}.{kind}" for name in ("confusion", "reliability", "mistakes") for kind in ("svg", "png")}
    documents = {"report.json", "metrics.json", "metrics.csv", "per_class.csv", "confusion.csv"}
    assert {path.name for path in made.iterdir()} == drawings | documents
    assert json.loads((made / "metrics.json").read_text()) == {**figures, "split": "test"}
    (row,) = table(made / "metrics.csv")
    assert set(row) == {"split", *figures} - {"per_class", "confusion"}
    assert (row.pop("split"), row.pop("temperature_from")) == ("test", "manifest")
    assert {name: float(value) for name, value in row.items()} == {name: figures[name] for name in row}
    rows = table(made / "per_class.csv")
    assert [(row["label"], float(row["f1"])) for row in rows] == [(c["label"], c["f1"]) for c in figures["per_class"]]
    rows = table(made / "confusion.csv")
    assert [row.pop("true") for row in rows] == list(classes)
    assert [[int(row[label]) for label in classes] for row in rows] == figures["confusion"]


@pytest.fixture(scope="module")
def pictures(layout) -> str:
    """A dataset of 2,000 PNG files of two sizes."""
    return write_mini(layout, "ds_pictures", part="train", classes=CIFAR_CLASSES, files=True).id


@pytest.fixture(scope="module")
def straight(layout, pictures):
    """A job of the slower model that was never interrupted: its report."""
    run_dir = layout.job("job_straight")
    run_dir.mkdir()
    slow = {"kind": "evaluate", "model": SLOWER, "dataset": pictures, "split": "test"}
    (run_dir / "spec.json").write_text(json.dumps(slow))
    code, _ = finish(EVALUATOR, run_dir)
    assert code == DONE
    return report(run_dir)


def test_an_evaluation_killed_and_stopped_in_the_middle_gives_the_bytes_of_one_never_interrupted(
    straight, pictures, new_job
):
    run_dir = new_job("evaluate", model=SLOWER, dataset=pictures, split="test")
    kept = {}
    for signal_, code in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, STOPPED)):
        with started(EVALUATOR, run_dir) as process:
            for line in lines(process):
                if line["type"] == "checkpoint":
                    kept[signal_] = line["data"]["images"]
                    process.send_signal(signal_)
            assert process.wait() == code
    assert 0 < kept[signal.SIGKILL] < kept[signal.SIGTERM] <= 2000
    # A third claim cannot use the second's part: a bit of it has flipped.
    part = min(run_dir.glob("claim-2/logits-*"), key=lambda path: int(path.name.split("-")[1]))
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)
    code, said = finish(EVALUATOR, run_dir)
    assert code == DONE
    assert of(said, "log")[0]["images"] == int(part.name.split("-")[1]) >= kept[signal.SIGKILL]
    assert report(run_dir, claim=3) == straight


def test_kept_logits_are_taken_up_as_far_as_they_are_whole(tmp_path):
    logits = np.random.default_rng(0).normal(size=(90, 3)).astype(np.float32)
    first = Predictions(tmp_path, tmp_path / "claim-1", classes=3)
    assert not first.keep()
    for start in (0, 30):
        first.add(logits[start : start + 30])
        assert first.keep()
    second = Predictions(tmp_path, tmp_path / "claim-2", classes=3)
    second.restore()
    assert second.done == 60
    second.add(logits[60:])
    second.keep()

    def restored(classes: int = 3) -> np.ndarray:
        again = Predictions(tmp_path, tmp_path / "claim-3", classes=classes)
        again.restore()
        return again.logits()

    assert (restored() == logits).all()
    assert restored(classes=4).shape == (0, 4)
    middle = tmp_path / "claim-1" / "logits-30-60"
    whole = middle.read_bytes()
    for damaged in (whole[:-4], whole[:40] + bytes([whole[40] ^ 1]) + whole[41:], b""):
        middle.write_bytes(damaged)
        assert (restored() == logits[:30]).all()


def test_keeping_logits_copies_those_that_are_new_and_no_others(tmp_path, monkeypatch):
    """Else an evaluation that keeps its logits every two seconds copies the square of them."""
    copied = []
    concatenate = np.concatenate

    def counted(parts):
        copied.append(sum(map(len, parts)))
        return concatenate(parts)

    logits = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    monkeypatch.setattr(np, "concatenate", counted)
    first = Predictions(tmp_path, tmp_path / "claim-1", classes=3)
    for start in range(0, 40, 10):
        first.add(logits[start : start + 10])
        assert first.keep()
        assert not first.keep()
    assert copied == [10, 10, 10, 10]
    second = Predictions(tmp_path, tmp_path / "claim-2", classes=3)
    second.restore()
    second.add(logits[40:70])
    second.add(logits[70:])
    assert second.keep()
    assert copied[4:] == [60]
    assert (second.logits() == logits).all()


REFUSALS = [
    ({"model": "mnist-residual@9"}, "model_not_found", "versions 1 to 1"),
    ({"dataset": "ds_none"}, "no_dataset", "Upload"),
    ({"split": "val"}, "no_split", "Its splits: test."),
    ({"split": "../test"}, "bad_spec", "spec.json"),
    ({"model": SLOWER}, "classes_differ", "Rename"),
]


@pytest.mark.parametrize(("change", "code", "hint"), REFUSALS, ids=[code for _, code, _ in REFUSALS])
def test_what_does_not_fit_is_refused_with_a_reason(layout, new_job, change, code, hint):
    run_dir = new_job("evaluate", **{"model": MODEL, "dataset": "ds_mini", "split": "test", **change})
    with pytest.raises(JobRefused) as refused:
        read_subject(run_dir, layout)
    assert refused.value.code == code
    assert hint in refused.value.hint
    if code == "bad_spec":
        assert str(refused.value).startswith("split: ")
    if code == "classes_differ":
        assert "'frog'" in str(refused.value)
        assert "'9'" in str(refused.value)


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def mislabelled(data: Path) -> None:
    labels = np.load(data / "test.labels.npy")
    labels[7] = 99
    np.save(data / "test.labels.npy", labels)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "images_cut_off": lambda data: cut(data / "test.images.npy"),
    "images_gone": lambda data: (data / "test.images.npy").unlink(),
    "labels_cut_off": lambda data: cut(data / "test.labels.npy"),
    "labels_empty": lambda data: (data / "test.labels.npy").write_bytes(b""),
    "label_of_no_class": mislabelled,
    "descriptor_cut_off": lambda data: cut(data.parent / "dataset.json"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_dataset_is_called_damaged_and_not_absent(layout, new_job, damage):
    folder = shutil.copytree(layout.dataset("ds_mini"), layout.dataset(f"ds_{damage}"))
    DAMAGES[damage](folder / "data")
    with pytest.raises(JobRefused) as refused:
        read_subject(new_job("evaluate", model=MODEL, dataset=folder.name), layout)
    assert refused.value.code == "dataset_damaged"
    assert refused.value.hint.startswith("Import the dataset again")


def other_model(layout, name: str) -> Path:
    """A copy of the model's folder under another name."""
    return shutil.copytree(Catalog(layout.models).folder("mnist-residual", 1), layout.models / name / "1")


@pytest.mark.parametrize("file", ["model.json", "weights.safetensors", "golden.safetensors"])
@pytest.mark.parametrize("harm", [cut, Path.unlink])
def test_a_damaged_model_is_called_damaged(layout, new_job, file, harm):
    name = f"{file.split('.', maxsplit=1)[0]}-{harm.__name__}"
    harm(other_model(layout, name) / file)
    run_dir = new_job("evaluate", model=f"{name}@1", dataset="ds_mini")
    with pytest.raises(JobRefused) as refused:
        _model(read_subject(run_dir, layout), "cpu")
    gone = (file, harm) == ("model.json", Path.unlink)
    assert refused.value.code == ("model_not_found" if gone else "model_damaged")
    assert refused.value.hint


def test_a_device_that_is_not_there_is_told(layout, new_job):
    subject = read_subject(new_job("evaluate", model=MODEL, dataset="ds_mini"), layout)
    with pytest.raises(JobRefused) as refused:
        _model(subject, "cuda:77")
    assert refused.value.code == "no_device"


def test_a_dataset_of_some_of_the_models_classes_is_measured_among_all_of_them(layout, new_job):
    some = write_mini(layout, "ds_some", part="t10k", classes=("4", "2", "0"), digits="024")
    run_dir = new_job("evaluate", model=MODEL, dataset=some.id)
    assert finish(EVALUATOR, run_dir)[0] == DONE
    document = json.loads(report(run_dir))
    figures = document["metrics"]
    images, labels = mini("t10k")
    images, labels = images[np.isin(labels, (0, 2, 4))], labels[np.isin(labels, (0, 2, 4))]
    probability, classes = as_served(layout, images)
    truth = np.array([classes.index(str(label)) for label in labels])
    predicted = probability.argmax(1)
    assert (figures["correct"], figures["total"]) == ((predicted == truth).sum(), 300)
    assert figures["log_loss"] == pytest.approx(-np.log(probability[np.arange(300), truth]).mean(), rel=1e-4)
    assert document["classes"] == list(classes)
    assert [each["support"] for each in figures["per_class"]] == [100 * (name in "024") for name in classes]
    assert np.array(figures["confusion"]).sum(0).tolist() == np.bincount(predicted, minlength=10).tolist()
    for each in document["worst_mistakes"]:
        assert each["label"] == str(labels[each["index"]]) != each["predicted"] == classes[predicted[each["index"]]]


def test_a_refusal_ends_the_process_with_its_code(new_job):
    code, said = finish(EVALUATOR, new_job("evaluate", model="none@1", dataset="ds_mini", split="test"))
    assert (code, of(said, "error")[0]["code"]) == (REFUSED, "model_not_found")


def test_a_prepared_image_is_the_engines_to_the_bit(layout, pictures):
    """The stored file of a split and the same file sent over HTTP give the same pixels."""
    folder = layout.dataset(pictures)
    split = open_split(folder, Dataset.read(folder), "test")
    want = Catalog(layout.models).manifest("cifar10-resnet20", 1).preprocessing
    ours = prepared(split, range(40), want)
    for index in range(40):
        sent, _ = prepare(decode(split.encoded(index), max_pixels=10_000), want)
        assert (ours[index] == sent).all()
