"""The planner, on real steps of a real network, in its own process and in this one."""

import json
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from planning_kit import images, on_disk
from running import environment

from models.recipes import resolve
from store.datasets import Dataset
from store.layout import Layout
from worker.job_process import DONE, REFUSED, JobRefused, Stop
from worker.planner import measuring, planning, rehearsal, sample
from worker.planner.memory import Peak, needed
from worker.planner.request import PlanRequest
from worker.trainer import data, distributed, steps
from worker.trainer.optimizer import learning_rate
from worker.trainer.pixels import Streamed

QUESTION = {
    "dataset": "ds_pets",
    "recipe": "fashion-mnist-small",
    "overrides": {"batch_size": 32, "precision": "fp32", "epochs": 4, "val_fraction": 0.2},
}


Lines = list[tuple[str, dict]]


@pytest.fixture
def plan(layout, monkeypatch):
    """The lines of a plan made in this process; `measure` takes real steps."""
    monkeypatch.setattr(measuring, "SECONDS", 120.0)  # a crowded machine is slow

    def go(*, measure: bool = False, **question: object) -> Lines:
        lines: Lines = []
        monkeypatch.setattr(planning, "emit", lambda kind, data: lines.append((kind, json.loads(json.dumps(data)))))
        monkeypatch.setattr(measuring, "_MOST_STEPS", 5)
        request = PlanRequest.model_validate({**QUESTION, **question})
        planning.plan(request, data_dir=layout.root, device_name="cpu", measure=measure, stop=Stop())
        return lines

    return go


def process(layout: Layout, *options: str, **question: object) -> tuple[Lines, int]:
    """The lines of the planner's own process, and its exit status."""
    command = [sys.executable, "-m", "worker.planner", "--data", str(layout.root), "--device", "cpu", *options]
    asked = json.dumps({**QUESTION, **question})
    ended = subprocess.run(
        command, input=asked, env=environment(), capture_output=True, text=True, timeout=120, check=False
    )
    lines = [json.loads(line) for line in ended.stdout.splitlines()]
    return [(line["type"], line["data"]) for line in lines], ended.returncode


def test_real_steps_are_measured_and_everything_else_follows_from_them(plan, layout):
    on_disk(layout, {"train": images(300, seed=0), "test": images(30, seed=1)})
    lines, code = process(layout, "--measure")
    assert (code, [kind for kind, _ in lines]) == (DONE, ["plan", "measured", "plan"])
    early, found = lines[0][1], lines[2][1]
    assert (early["measured"]["reason"], early["images_per_second"]) == ("not_finished", None)
    assert found["images"] == {"train": 240, "val": 60, "test": 30}
    assert (found["steps_per_epoch"], found["steps"]) == (7, 28)
    assert found["recipe"]["batch_size"] == 32
    measured = found["measured"]
    assert (measured["reason"], measured["cached"], measured["streamed"]) == (None, False, False)
    speed = measured["steps"] * measured["batch_size"] / measured["seconds"]
    assert found["images_per_second"] == pytest.approx(speed, rel=0.01)
    assert measured["steps"] >= 1 <= measured["warmup_steps"]
    assert found["eta"]["train"] == pytest.approx(28 * 32 / found["images_per_second"], rel=0.01, abs=0.1)
    assert found["memory"]["device_bytes"] > found["memory"]["free_bytes"] > 0
    assert found["memory"]["data_bytes"] == 300 * 28 * 28
    assert found["device"]["type"] == "cpu"
    assert {each["code"] for each in found["problems"]} >= {"no_val_split"}

    ((kind, cached),) = plan(measured=lines[1][1])  # as the worker hands it back for another plan of the same work
    assert kind == "plan"
    assert (cached["images_per_second"], cached["measured"]["cached"]) == (found["images_per_second"], True)


def test_the_time_of_a_small_training_is_foreseen_within_a_factor_of_three(layout):
    """From the process's start to its end, most of which is neither a step nor a validation; and with a save behind
    each step, which takes longer. What is measured leaves nothing behind.
    """
    on_disk(layout, {"train": images(900, seed=0), "test": images(90, seed=1)})
    before = sorted(layout.root.rglob("*"))
    lines, _ = process(layout, "--measure")
    assert sorted(layout.root.rglob("*")) == before
    rare = lines[-1][1]["eta"]
    often, _ = process(layout, measured=lines[1][1], overrides={**QUESTION["overrides"], "checkpoint_seconds": 0})
    foreseen = often[-1][1]["eta"]
    assert (rare["start"] > 0.5, rare["report"] > 0) == (True, True)
    each = often[-1][1]["measured"]["save_seconds"]
    assert foreseen["save"] == pytest.approx(often[-1][1]["steps"] * each, abs=0.1)
    assert foreseen["total"] == pytest.approx(rare["total"] + foreseen["save"] - rare["save"], abs=0.2)
    assert foreseen["total"] > rare["total"]

    job = layout.job("job_1")
    job.mkdir()
    spec = {"kind": "train", "dataset": "ds_pets", "recipe": QUESTION["recipe"], "register_as": "pets"}
    overrides = {**QUESTION["overrides"], "checkpoint_seconds": 0}
    (job / "spec.json").write_text(json.dumps({**spec, "overrides": overrides}))
    command = [sys.executable, "-m", "worker.trainer", str(job), "--claim", "1", "--device", "cpu"]
    began = time.monotonic()
    ended = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    took = time.monotonic() - began
    said = [json.loads(line)["type"] for line in ended.stdout.splitlines()]
    assert said.count("checkpoint") == often[-1][1]["steps"]
    assert took / 3 < foreseen["total"] < took * 3, (took, foreseen)


def test_a_device_that_is_in_use_is_left_alone_and_the_rest_is_told(plan, layout):
    on_disk(layout, {"train": images(60, seed=0), "test": images(30, seed=1)})
    ((_, found),) = plan()
    assert found["measured"] == {"reason": "device_busy", "cached": False}
    assert (found["parameters"], found["memory"], found["eta"]) == (74_547, None, None)
    assert found["learning_rate"]["steps"][-1] == found["steps"] - 1


def test_a_training_that_would_be_refused_is_planned_with_the_reason_and_not_measured(plan, layout):
    pixels, labels = images(30, seed=0)
    on_disk(layout, {"train": (pixels[:1], labels[:1]), "test": (pixels, labels)})
    ((_, found),) = plan(measure=True)
    assert found["measured"]["reason"] == "refused"
    assert found["problems"][0]["code"] == "no_training_data"


def test_more_devices_than_the_worker_has_are_why_a_plan_is_refused_and_not_measured(plan, layout):
    on_disk(layout, {"train": images(300, seed=0), "test": images(30, seed=1)})
    ((_, found),) = plan(measure=True, overrides={**QUESTION["overrides"], "batch_size": 128, "devices": 64})
    assert found["measured"]["reason"] == "refused"
    worst = found["problems"][0]
    assert (worst["severity"], worst["code"]) == ("error", "too_few_devices")
    with pytest.raises(JobRefused) as refused:
        distributed._own_device("cpu", 64, 0)
    assert (worst["message"], worst["hint"]) == (str(refused.value), refused.value.hint)


def test_images_to_stream_are_read_by_as_many_threads_as_the_run_will_have(plan, layout, monkeypatch):
    on_disk(layout, {"train": images(300, seed=0), "test": images(30, seed=1)})
    threads = []

    class Heard(Streamed):
        def __init__(self, *arguments, workers, **names):
            threads.append(workers)
            super().__init__(*arguments, workers=workers, **names)

    monkeypatch.setattr(sample, "Streamed", Heard)
    monkeypatch.setattr(sample, "usable_cores", lambda: 7)
    dataset = Dataset.read(layout.dataset("ds_pets"))
    for overrides in ({"workers": 3}, {"workers": 3, "loader": "stream"}, {"workers": 0, "loader": "stream"}):
        chosen = resolve(QUESTION["recipe"], {**QUESTION["overrides"], **overrides})
        taken = sample.take(layout.dataset("ds_pets"), dataset, chosen)
        assert taken.streamed == ("loader" in overrides)
    sample.take(
        layout.dataset("ds_pets"),
        dataset,
        resolve(QUESTION["recipe"], {"workers": 3, "loader": "stream", "devices": 2}),
    )
    assert threads == [7, 3, 0, 6]


def test_whether_images_are_streamed_is_asked_for_all_of_the_runs_processes(layout, monkeypatch):
    """Two hold twice as much as one."""
    on_disk(layout, {"train": images(300, seed=0), "test": images(30, seed=1)})
    monkeypatch.setattr(data, "_SMALL", 0)
    monkeypatch.setattr(data, "available_bytes", lambda: 3 * 300 * 28 * 28)
    folder = layout.dataset("ds_pets")
    streamed = [
        sample.take(folder, Dataset.read(folder), resolve(QUESTION["recipe"], {"devices": devices})).streamed
        for devices in (1, 2)
    ]
    assert streamed == [False, True]


def test_a_plan_tells_the_values_of_fields_that_follow_others(plan, layout):
    on_disk(layout, {"train": images(60, seed=0), "test": images(30, seed=1)})
    ((_, found),) = plan(
        recipe="imagenet", overrides={"image_size": 64, "epochs": 10, "network": "torchvision/resnet18"}
    )
    assert (found["recipe"]["resize"], found["recipe"]["step_epochs"]) == (73, [3.33, 6.67])
    assert found["learning_rate"]["values"][-1] == 0.001


def test_the_curve_is_an_svg(plan, layout):
    on_disk(layout, {"train": images(60, seed=0)})
    ((_, found),) = plan(curve=True)
    assert found["svg"].lstrip().startswith("<?xml")
    assert "Learning rate" in found["svg"]


def test_what_cannot_be_planned_is_refused_with_a_hint(plan, layout):
    for question, expected in (({}, "no_dataset"), ({"recipe": "nothing"}, "bad_recipe")):
        with pytest.raises(JobRefused) as refused:
            plan(**question)
        assert refused.value.code == expected
        assert refused.value.hint
    ((kind, error),), code = process(layout, dataset=3)
    assert (kind, code, error["code"]) == ("error", REFUSED, "bad_request")


def test_damaged_files_are_a_problem_that_is_told_with_all_that_is_known(plan, layout):
    dataset = on_disk(layout, {"train": images(60, seed=0), "test": images(30, seed=1)})
    (layout.dataset(dataset.id) / "data" / "train.images.npy").write_bytes(b"torn")
    for found in (plan(measure=True)[-1][1], plan()[-1][1]):
        assert found["parameters"] > 0
        assert (found["problems"][0]["severity"], found["problems"][0]["code"]) == ("error", "dataset_damaged")
        assert found["measured"]["reason"] == "refused"


def test_images_that_the_run_would_stream_are_streamed_by_the_measurement_too(plan, layout):
    on_disk(layout, {"train": images(200, seed=0), "test": images(30, seed=1)})
    found = plan(measure=True, overrides={**QUESTION["overrides"], "loader": "stream"})[-1][1]
    assert found["measured"]["streamed"]
    assert (found["memory"]["data_bytes"], found["eta"]["load"]) == (0, 0.0)
    assert found["images_per_second"] <= found["measured"]["load_images_per_second"]


def test_a_batch_in_parts_and_a_dataset_smaller_than_it_are_measured_as_they_would_run(plan, layout):
    on_disk(layout, {"train": images(60, seed=0), "test": images(30, seed=1)})
    parts = {**QUESTION["overrides"], "batch_size": 64, "accumulate": 4}
    found = plan(measure=True, overrides=parts, max_seconds=0.001)[-1][1]
    assert found["measured"]["batch_size"] == 48
    assert (found["largest_batch_size"], found["largest_batch"]["bound_by"]) == (48, "data")
    assert {"batch_larger_than_data", "max_seconds_too_short"} <= {each["code"] for each in found["problems"]}


def test_the_learning_rates_of_a_measurement_are_those_of_the_runs_first_steps(plan, layout, monkeypatch):
    """Of ten, of which the last stands for all that come after it."""
    on_disk(layout, {"train": images(200, seed=0), "test": images(30, seed=1)})
    followed = []

    def followed_by(*arguments, **names):
        followed.append(learning_rate(*arguments, **names))
        return followed[-1]

    monkeypatch.setattr(steps, "learning_rate", followed_by)
    short = {**QUESTION["overrides"], "batch_size": 16, "epochs": 1, "warmup_epochs": 0.4}
    found = plan(measure=True, overrides=short)[-1][1]
    assert found["steps"] == found["steps_per_epoch"] == 10
    asked = resolve(QUESTION["recipe"], short)
    run = [learning_rate(asked, step=min(step, 9), steps_per_epoch=10) for step in range(len(followed))]
    assert followed == run
    assert len(followed) > 6
    assert min(followed) > 0


def test_a_loss_that_is_no_number_is_told_of_the_plan_whose_steps_were_taken_and_of_no_other(plan, layout):
    on_disk(layout, {"train": images(300, seed=0), "test": images(30, seed=1)})
    tame = {"batch_size": 32, "epochs": 10, "momentum": 0.99, "warmup_epochs": 1}
    wild = {**tame, "lr": 100.0, "warmup_epochs": 0}
    tried = plan(measure=True, recipe="mnist", overrides=wild)
    others = [plan(recipe="mnist", overrides=overrides, measured=tried[1][1]) for overrides in (tame, wild)]
    codes = [{each["code"] for each in lines[-1][1]["problems"]} for lines in (tried, *others)]
    assert ["loss_not_finite" in each for each in codes] == [True, False, False]
    assert ["loss_not_tried" in each for each in codes] == [False, True, True]


LONE = {"network": "torchvision/resnet18", "image_size": 32, "warmup_epochs": 0}


def test_few_images_are_measured_in_fewer_parts_so_that_none_is_one_image(plan, layout):
    """From one image this network does not learn at this size, and seven in five parts would have three of one."""
    on_disk(layout, {"train": images(7, seed=0), "val": images(9, seed=1)})
    parts = {**QUESTION["overrides"], **LONE, "batch_size": 16, "accumulate": 5}
    found = plan(measure=True, overrides=parts)[-1][1]
    assert found["measured"]["batch_size"] == 7


def test_smaller_batches_that_are_measured_are_whole_parts(plan, layout, monkeypatch):
    """By a clock of the test on which there is time for three images, of which the third would be alone."""
    on_disk(layout, {"train": images(8, seed=0), "val": images(9, seed=1)})
    timed = rehearsal.Rehearsal._timed

    def slow(self, work):
        timed(self, work)
        return 20.0

    monkeypatch.setattr(rehearsal.Rehearsal, "_timed", slow)
    monkeypatch.setattr(measuring, "time", SimpleNamespace(monotonic=lambda: 0.0, perf_counter=time.perf_counter))
    parts = {**QUESTION["overrides"], **LONE, "batch_size": 8, "accumulate": 4}
    found = plan(measure=True, overrides=parts)[-1][1]
    assert found["measured"]["batch_size"] == 2


def test_the_memory_of_a_plan_is_that_of_a_validation_where_this_takes_more_than_a_step(plan, layout):
    """Steps compute two images at once, a validation 256."""
    on_disk(layout, {"train": images(64, seed=0), "val": images(300, seed=1)})
    small = {"network": "cifar/resnet8", "batch_size": 4, "accumulate": 2}
    lines, _ = process(layout, "--measure", overrides={**QUESTION["overrides"], **small})
    measured, found = lines[1][1], lines[2][1]
    rest, most = (Peak(**each) for each in measured["evaluation"])
    assert (rest.images, most.images > 2) == (0, True)  # all of them, unless the machine is slow
    assert most.bytes - rest.bytes > most.images * 16 * 28 * 28 * 4  # one layer's output
    assert needed(rest, most, 256) > measured["peaks"][1]["bytes"]
    assert measured["kept_bytes"] > 4 * found["parameters"]
    beside = found["memory"]["data_bytes"] + measured["kept_bytes"]
    assert found["memory"]["peak_bytes"] == needed(rest, most, 256) + beside
    assert (found["memory"]["method"] == "measured") == (most.images == 256)


def test_a_measurement_that_needs_more_memory_than_there_is_says_so(plan, layout, monkeypatch):
    on_disk(layout, {"train": images(60, seed=0), "test": images(30, seed=1)})

    def too_much(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(planning.Measurement, "run", too_much)
    found = plan(measure=True)[-1][1]
    assert found["measured"]["reason"] == "out_of_memory"
    assert "out_of_memory" in {each["code"] for each in found["problems"]}
