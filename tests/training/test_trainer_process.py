"""The trainer as its supervisor sees it: a process, its lines, its exit code, its files."""

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from job_processes import lines, of
from safetensors.numpy import load_file
from squares import CLASSES, squares, write_dataset
from trainer_kit import SPLITS, after_checkpoints, finish, trainer

from models import checkpoint, checkpoint_files, golden, probes, runtime
from models.manifest import Manifest, Preprocessing
from store.layout import Layout
from worker.job_arguments import JobArguments
from worker.job_process import DONE, STOPPED, JobRefused, JobStopped, Stop
from worker.trainer import data, evaluate
from worker.trainer.train import train

FEATURES = {
    "ema_decay": 0.9,
    "crop_padding": 2,
    "horizontal_flip": False,
    "cutout": 4,
    "erasing": 0.3,
    "auto_augment": "trivial",
    "mixup": 0.2,
    "cutmix": 0.5,
    "label_smoothing": 0.05,
    "sampling": "balanced",
    "accumulate": 2,
    "clip_norm": 5.0,
    "precision": "bf16",
}


def test_a_batch_in_parts_gives_the_gradient_of_the_whole(layout: Layout, new_job, here):
    """The MNIST network has no normalisation, whose statistics would be those of the parts."""
    write_dataset(layout, SPLITS)
    losses = []
    for parts in (1, 4):
        said = here(new_job(f"parts{parts}", recipe="mnist", epochs=1, accumulate=parts, precision="fp32"))
        losses.append([epoch["val"]["loss"] for epoch in of(said, "epoch")])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_a_run_killed_twice_ends_with_the_bits_of_one_never_interrupted(layout: Layout, new_job):
    write_dataset(layout, SPLITS)
    code, said = finish(new_job("whole", **FEATURES, deterministic=True))
    assert code == DONE
    whole = layout.job("whole") / "claim-1" / "model"

    # The result is a model that serves what was evaluated, to the image.
    (result,) = of(said, "result")
    assert result["artifact"] == "claim-1/model"
    metrics = result["metrics"]
    assert of(said, "evaluation") == [metrics]
    assert metrics["split"] == "test"
    served = runtime.load(whole, "cpu")
    predicted = served.logits(SPLITS["test"][0]).argmax(1)
    assert int((predicted == SPLITS["test"][1]).sum()) == metrics["correct"] == metrics["top1"] * metrics["total"]
    assert metrics["total"] == 60 == np.sum(metrics["confusion"])
    assert metrics["top1"] > 0.8
    assert golden.check(served, whole) <= 1e-3
    images = probes.read(whole, served.manifest)  # from which int8 is made, and on which it is judged
    assert images is not None
    np.testing.assert_allclose(served.logits(images.heldout), images.logits, atol=1e-3)
    assert (images.logits.argmax(1) == images.labels).mean() > 0.8
    assert set(map(bytes, images.calibration)) <= set(map(bytes, SPLITS["train"][0]))
    manifest = Manifest.read(whole)
    assert manifest.classes == CLASSES
    assert (manifest.lineage.job, manifest.lineage.dataset) == ("whole", "ds_squares")

    # It told of every epoch, and of itself while it worked.
    assert [epoch["epoch"] for epoch in of(said, "epoch")] == [1, 2, 3]
    assert of(said, "progress")[0]["phase"] == "load"
    last = [p for p in of(said, "progress") if p["phase"] == "train"][-1]
    assert last["step"] == last["steps"]
    assert last["fraction"] == 1

    killed = new_job("killed", **FEATURES, deterministic=True, checkpoint_seconds=0)
    for count in (3, 5):
        with trainer(killed) as process:
            after_checkpoints(process, count, signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
    code, said = finish(killed)
    assert code == DONE
    assert of(said, "log")[0]["step"] >= 8
    third = killed / "claim-3" / "model"
    assert (third / "weights.safetensors").read_bytes() == (whole / "weights.safetensors").read_bytes()
    assert (third / "golden.safetensors").read_bytes() == (whole / "golden.safetensors").read_bytes()
    same = ("correct", "log_loss", "ece", "temperature", "val_top1", "val_loss", "confusion")
    assert {key: metrics[key] for key in same} == {key: of(said, "result")[0]["metrics"][key] for key in same}
    assert not list(killed.glob("claim-*/.*.tmp"))


def test_the_images_from_which_int8_is_made_are_as_large_as_the_models_input(layout: Layout, new_job, here):
    """Random crops are taken from larger ones; what earlier trainings wrote of those is read so, too."""
    write_dataset(layout, SPLITS)
    here(new_job("cropped", epochs=1, crop_padding=0, random_resized_crop=[0.5, 1.0], resize=36))
    model = layout.job("cropped") / "claim-1" / "model"
    manifest = Manifest.read(model)
    images = probes.read(model, manifest)
    assert images is not None
    assert images.calibration.shape[1:] == (manifest.preprocessing.height, manifest.preprocessing.width, 1)
    written = load_file(model / "calibration.safetensors")["calibration.images"]
    assert np.array_equal(written, images.calibration)

    large = np.pad(images.calibration, ((0, 0), (4, 4), (4, 4), (0, 0)))
    sha256 = probes.write(
        model, calibration=large, heldout=images.heldout, labels=images.labels, logits=lambda _: images.logits
    )
    again = probes.read(model, manifest.model_copy(update={"calibration_sha256": sha256}))
    assert again is not None
    assert sorted(map(bytes, again.calibration)) == sorted(map(bytes, images.calibration))


def test_sigterm_ends_in_a_checkpoint_from_which_the_next_claim_goes_on(layout: Layout, new_job):
    write_dataset(layout, SPLITS)
    job = new_job("stopped", epochs=200, checkpoint_seconds=0)
    with trainer(job, "--claim", "4") as process:
        said = after_checkpoints(process, 2, signal.SIGTERM)
        assert process.wait() == STOPPED
    reached = of(said, "checkpoint")[-1]
    assert reached["path"] == f"claim-4/step-{reached['step']}"
    assert (job / reached["path"]).is_dir()
    with trainer(job) as process:
        resumed = next(line for line in lines(process) if line["type"] == "log")
        assert resumed["data"]["step"] == reached["step"]


def test_a_run_that_goes_on_measures_no_mean_and_std_again(
    layout: Layout, new_job, here, monkeypatch: pytest.MonkeyPatch
):
    """Of streamed images that is a pass over all of train."""
    write_dataset(layout, SPLITS)
    job = new_job("measured", epochs=1, mean=None, std=[0.25])
    measured = []

    def measuring(*arguments: Any, **names: Any) -> Any:
        measured.append(mean_and_std(*arguments, **names))
        return measured[-1]

    mean_and_std = data.mean_and_std
    monkeypatch.setattr(data, "mean_and_std", measuring)

    def trained(claim: int) -> Preprocessing:
        here(job, claim=claim)
        return Manifest.read(job / f"claim-{claim}" / "model").preprocessing

    first = trained(1)
    assert (first.mean, first.std) == (measured[0][0], (0.25,))
    assert trained(2) == first
    assert len(measured) == 1

    # A checkpoint of an earlier revision does not tell.
    newest = checkpoint.newest(job)
    assert newest is not None
    state = {name: value for name, value in newest.state.items() if name != "normalisation"}
    checkpoint.save(job / "claim-2", checkpoint.Checkpoint(newest.step, state, newest.tensors))
    assert trained(3) == first
    assert len(measured) == 2


def test_a_run_that_goes_on_is_from_its_first_word_as_far_as_it_was(layout: Layout, new_job):
    write_dataset(layout, SPLITS)
    job = new_job("farther", epochs=200, checkpoint_seconds=3600)
    with trainer(job) as process:
        before = []
        for line in lines(process):
            before.append(line)
            if line["type"] == "progress" and line["data"]["epoch"] >= 2:
                process.send_signal(signal.SIGTERM)
        assert process.wait() == STOPPED
    after = []
    with trainer(job) as process:
        for line in lines(process):
            after.append(line)
            if line["type"] == "progress" and line["data"]["phase"] == "train":
                break
    last, resumed = of(before, "progress")[-1], of(after, "progress")
    assert resumed[0]["phase"] == "load"
    assert {line["steps"] for line in resumed} == {last["steps"]}
    assert all(line["epoch"] >= last["epoch"] for line in resumed)
    assert all(line["fraction"] >= last["fraction"] > 0 for line in resumed)


def test_a_model_that_an_earlier_claim_never_told_of_is_removed(layout: Layout, new_job, here):
    write_dataset(layout, SPLITS)
    job = new_job("again", epochs=1)
    claims = [job / f"claim-{number}" / "model" for number in (1, 2, 3)]
    for model in (claims[0], claims[2]):
        model.mkdir(parents=True)
    here(job, claim=2)
    assert [model.exists() for model in claims] == [False, True, True]


def test_a_diverged_loss_is_an_error_that_says_what_to_change(layout: Layout, new_job, here):
    write_dataset(layout, SPLITS)
    job = new_job("diverged", recipe="mnist", lr=100, warmup_epochs=0, momentum=0.99, epochs=50)
    with pytest.raises(JobRefused) as caught:
        here(job)
    assert caught.value.code == "loss_not_finite"
    assert "lr" in caught.value.hint


def test_a_damaged_test_split_is_refused_before_the_first_step(layout: Layout, new_job, here):
    dataset = write_dataset(layout, SPLITS)
    labels = layout.dataset(dataset.id) / "data" / "test.labels.npy"
    labels.write_bytes(labels.read_bytes()[:-8])
    job = new_job("damaged")
    with pytest.raises(JobRefused) as caught:
        here(job)
    assert caught.value.code == "dataset_damaged"
    assert checkpoint_files.newest(job) is None


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
@pytest.mark.timeout(600)  # a compiler is at work, on however few cores
def test_a_compiled_network_learns_the_same_and_its_compiler_is_no_stall(layout: Layout, new_job):
    write_dataset(layout, SPLITS)
    losses = {}
    for compiled in (False, True):
        code, said = finish(new_job(f"compiled-{compiled}", epochs=1, compile=compiled))
        assert code == DONE
        losses[compiled] = [epoch["train"]["loss"] for epoch in of(said, "epoch")]
        assert ("compile" in [line["phase"] for line in of(said, "progress")]) is compiled
        assert not of(said, "warning")
    assert losses[True] == pytest.approx(losses[False], rel=1e-3)


def test_where_no_compiler_is_a_run_that_asks_for_one_goes_on_and_says_so(
    layout: Layout, new_job, here, monkeypatch: pytest.MonkeyPatch
):
    write_dataset(layout, SPLITS)
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    said = here(new_job("none", epochs=1, compile=True))
    assert [warning["code"] for warning in of(said, "warning")] == ["no_compiler"]
    assert of(said, "result")


def test_without_a_test_split_the_metrics_are_those_of_val_and_say_so(layout: Layout, new_job, here):
    """Here early stopping ends the run too, and the images come as files of another size."""
    write_dataset(layout, {"train": squares(96, seed=0, size=40, channels=3)}, encoded=True)
    said = here(new_job("no-test", epochs=60, target_accuracy=0.5))
    assert [warning["code"] for warning in of(said, "warning")] == ["no_test_split"]
    metrics = of(said, "result")[0]["metrics"]
    assert (metrics["split"], metrics["ended"]) == ("val", "target_accuracy")
    assert metrics["top1"] == metrics["val_top1"] >= 0.5


@pytest.mark.parametrize(
    ("spec", "code"),
    [
        (None, "no_spec"),
        ({"kind": "train"}, "bad_spec"),
        ({"kind": "train", "dataset": "ds_none", "recipe": "mnist", "overrides": {}, "register_as": "x"}, "no_dataset"),
        ({"kind": "train", "dataset": "ds_none", "recipe": "mnits", "overrides": {}, "register_as": "x"}, "bad_recipe"),
    ],
)
def test_a_job_that_cannot_run_is_refused_with_a_code(layout: Layout, spec: dict[str, Any] | None, code: str):
    """In this process: the refusals come before torch has work to do."""
    run_dir = layout.job("refused")
    run_dir.mkdir()
    if spec is not None:
        (run_dir / "spec.json").write_text(json.dumps(spec))
    with pytest.raises(JobRefused) as caught:
        train(JobArguments(run_dir=run_dir, claim=1, data_dir=layout.root, device="cpu"), Stop())
    assert caught.value.code == code
    assert caught.value.hint


def test_a_stop_during_a_validation_is_obeyed_and_whoever_goes_on_validates_again(
    layout: Layout, new_job, monkeypatch: pytest.MonkeyPatch
):
    write_dataset(layout, SPLITS)

    def run(job: Path, claim: int, stop: Stop) -> tuple[bytes, list[dict[str, Any]]]:
        train(JobArguments(run_dir=job, claim=claim, data_dir=layout.root, device="cpu"), stop)
        newest = checkpoint.newest(job)
        assert newest is not None
        history = [{**epoch, "seconds": epoch["seconds"] > 0} for epoch in newest.state["history"]]
        return (job / f"claim-{claim}" / "model" / "weights.safetensors").read_bytes(), history

    whole, stopped = new_job("whole"), new_job("stopped")
    stop, validate = Stop(), evaluate.logits

    def interrupted(*arguments: Any, between: Any, **more: Any) -> Any:
        stop._event.set()
        between()
        return validate(*arguments, between=between, **more)

    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "logits", interrupted)
        with pytest.raises(JobStopped):
            run(stopped, 1, stop)
    assert checkpoint_files.newest(stopped) is not None
    assert run(stopped, 2, Stop()) == run(whole, 1, Stop())
