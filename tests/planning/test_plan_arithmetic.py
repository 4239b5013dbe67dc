"""What a plan computes from what it was told: images of each part, the curve, memory, time, and what is the same."""

import mmap
import os
import subprocess
import sys
import time
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from planning_kit import described, recipe

from models.manifest import NetworkSpec
from models.networks import registry
from models.recipes import RecipeError
from worker.planner import memory, network
from worker.planner.contention import Turns
from worker.planner.curve import learning_rates
from worker.planner.estimate import Speed, run_seconds, saves
from worker.planner.measuring import Measured, Measurement, rounded
from worker.planner.memory import Peak, Room
from worker.planner.request import PlanRequest, measured_key, plan_key
from worker.planner.summary import MOST, Plan
from worker.trainer.optimizer import learning_rate
from worker.trainer.split_sizes import Sizes, sizes


def test_a_step_takes_no_more_images_than_there_are():
    few = sizes(described({"train": (3, 3, 3), "val": (1, 1, 1)}), recipe(batch_size=16))
    assert (few.batch, few.steps_per_epoch, few.val, few.test) == (9, 1, 3, 0)
    assert sizes(described({"test": (1, 1, 1)}), recipe()).steps_per_epoch == 0


@pytest.mark.parametrize("name", ["cifar/resnet20", "d2l/resnet18", "mnist/gated", "torchvision/resnet50"])
def test_parameters_are_counted_without_a_weight_being_drawn(name):
    entry = registry.find(name)
    before = torch.random.get_rng_state()
    parameters, flops = network.count(
        NetworkSpec(name=name, num_classes=10, in_channels=entry.input[0]), size=entry.input[1]
    )
    assert parameters == entry.parameters
    assert torch.equal(before, torch.random.get_rng_state())
    assert flops > 0


def test_the_flops_are_those_of_the_papers():
    resnet50 = NetworkSpec(name="torchvision/resnet50", num_classes=1000, in_channels=3)
    assert network.count(resnet50, size=224)[1] / 2 == pytest.approx(4.09e9, rel=0.01)  # multiply-adds, torchvision
    resnet20 = NetworkSpec(name="cifar/resnet20", num_classes=10, in_channels=3)
    assert network.count(resnet20, size=32)[1] / 2 == pytest.approx(40.6e6, rel=0.02)  # He et al. 2015, section 4.2


@pytest.mark.parametrize(
    "overrides",
    [
        {"schedule": "one_cycle", "warmup_epochs": 1.5},
        {"schedule": "cosine", "warmup_epochs": 0.0},
        {"schedule": "step", "step_epochs": [2, 5], "warmup_epochs": 0.5},
        {"schedule": "step", "step_epochs": [3.33, 6.67], "warmup_epochs": 0.4},
        {"schedule": "constant", "warmup_epochs": 0.0},
    ],
)
def test_the_lines_between_the_points_of_the_curve_are_the_learning_rate_of_every_step(overrides):
    chosen = recipe(epochs=8, lr=0.2, **overrides)
    steps, values = learning_rates(chosen, 454)
    assert (steps[0], steps[-1]) == (0, 8 * 454 - 1)
    assert len(steps) <= 210
    every = np.arange(8 * 454)
    exact = [learning_rate(chosen, step=int(step), steps_per_epoch=454) for step in every]
    assert np.interp(every, steps, values) == pytest.approx(exact, abs=2e-4 * 0.2)


def test_no_larger_batch_is_tried_than_a_recipe_may_have():
    assert recipe(batch_size=MOST).batch_size == MOST
    with pytest.raises(RecipeError):
        recipe(batch_size=MOST + 1)


def test_a_run_of_one_step_has_a_curve_of_one_point_and_one_of_none_has_none():
    one = recipe(epochs=1, warmup_epochs=0.0)
    assert [len(each) for each in learning_rates(one, 1)] == [1, 1]
    assert learning_rates(one, 0) == ([], [])


def test_memory_is_a_line_through_two_peaks_and_a_tenth_is_left_free():
    low, high = Peak(images=10, bytes=1000), Peak(images=20, bytes=1500)
    assert memory.needed(low, high, 100) == 5500
    fits = memory.largest(low, high, free=10_000, extra=500)
    assert fits == 160
    assert memory.needed(low, high, fits) + 500 <= 9_000 < memory.needed(low, high, fits + 1) + 500
    assert memory.largest(low, high, free=100, extra=0) == 0
    assert memory.largest(low, Peak(images=20, bytes=1000), free=10_000, extra=0) is None


def seen(
    *,
    evaluation: tuple[Peak, Peak],
    free: int,
    device: str = "cpu",
    core_share: float = 0.99,
    kept_bytes: int = 0,
    **overrides: object,
) -> dict:
    """A plan's JSON where steps of 8 images took 2,000 bytes, and 1,000 at rest."""
    chosen = recipe(**{"batch_size": 8, **overrides})
    measured = Measured(
        at="2026-01-31T12:00:00+00:00",
        device={"worker": "w", "name": "n", "type": device},
        room=Room(total=10**9, free=free),
        batch_size=8,
        warmup_steps=1,
        steps=5,
        seconds=1.0,
        images_per_second=40.0,
        evaluate_images_per_second=100.0,
        load_images_per_second=1000.0,
        streamed=True,
        peaks=(Peak(images=0, bytes=1000), Peak(images=8, bytes=2000)),
        evaluation=evaluation,
        fits=None,
        too_many=None,
        finite=True,
        core_share=core_share,
        kept_bytes=kept_bytes,
    )
    plan = Plan(
        recipe=chosen,
        sizes=Sizes(train=1000, val=200, test=100, batch=chosen.batch_size),
        parameters=1,
        flops_per_image=1,
        curve=([], []),
        device_name="cpu",
        problems=[],
        overridden=tuple(overrides),
        measured=Measured.of(measured.as_json()),
    )
    return plan.as_json(without="not_finished")


def test_a_runs_memory_is_that_of_its_steps_or_its_validation_whichever_is_more():
    """It validates 200 images at once, those of val."""
    rest = Peak(images=0, bytes=1000)
    small = seen(evaluation=(rest, Peak(images=256, bytes=1256)), free=10**6)
    assert (small["memory"]["peak_bytes"], small["memory"]["method"]) == (2000, "measured")
    large = seen(evaluation=(rest, Peak(images=100, bytes=5000)), free=10**6)
    assert (large["memory"]["peak_bytes"], large["memory"]["method"]) == (9000, "estimated")
    codes = [
        {each["code"] for each in seen(evaluation=(rest, Peak(images=100, bytes=5000)), free=free)["problems"]}
        for free in (9000, 8999)
    ]
    assert ["validation_too_large_for_memory" in each for each in codes] == [False, True]


def test_the_best_epochs_weights_lie_beside_every_step_on_a_cpu_and_not_on_a_gpu():
    rest = Peak(images=0, bytes=1000)
    figures = {"evaluation": (rest, Peak(images=256, bytes=1256)), "free": 10**4, "kept_bytes": 700}
    cpu, gpu = (seen(**figures, device=device) for device in ("cpu", "cuda"))
    assert (cpu["memory"]["peak_bytes"], gpu["memory"]["peak_bytes"]) == (2700, 2000)
    assert cpu["largest_batch_size"] == gpu["largest_batch_size"] - 6  # 125 bytes an image


def test_tf32_that_somebody_asked_for_is_said_to_change_nothing_on_a_cpu():
    rest = Peak(images=0, bytes=1000)
    figures = {"evaluation": (rest, Peak(images=256, bytes=1256)), "free": 10**4}
    for device, precision in (("cpu", "tf32"), ("cuda", "tf32"), ("cpu", "fp32")):
        found = seen(**figures, device=device, precision=precision)["problems"]
        told = [each for each in found if each["code"] == "override_without_effect"]
        assert len(told) == (device == "cpu" and precision == "tf32")
        assert all(each["severity"] == "note" and "tf32" in each["message"] for each in told)


def test_figures_of_a_measurement_by_an_older_worker_are_used_without_what_it_did_not_measure():
    rest = Peak(images=0, bytes=1000)
    found = seen(evaluation=(rest, Peak(images=256, bytes=1256)), free=10**4)
    assert (found["eta"]["start"], found["eta"]["save"], found["eta"]["report"]) == (0.0, 0.0, 0.0)
    assert found["eta"]["train"] > 0


def test_steps_that_other_work_kept_waiting_are_told_of():
    rest = Peak(images=0, bytes=1000)
    figures = {"evaluation": (rest, Peak(images=256, bytes=1256)), "free": 10**4}
    alone, beside = (seen(**figures, core_share=share) for share in (0.85, 0.849))
    assert "machine_busy" not in {each["code"] for each in alone["problems"]}
    told = next(each for each in beside["problems"] if each["code"] == "machine_busy")
    assert (beside["measured"]["core_share"], told["severity"]) == (0.849, "warning")
    assert "85% of the cores' time" in told["message"]


def test_the_share_of_the_cores_is_what_the_threads_had_of_the_time_they_wanted():
    assert Turns(ran=150, waited=70).share_since(Turns(ran=120, waited=60)) == 0.75
    assert Turns(ran=1, waited=1).share_since(Turns(ran=1, waited=1)) is None


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="this kernel does not count it")
def test_a_process_that_shares_its_core_with_another_has_about_half_of_it():
    core = min(os.sched_getaffinity(0))
    both = f"import os, time; os.sched_setaffinity(0, {{{core}}})"
    spin = "end = time.monotonic() + 1.5\nwhile time.monotonic() < end: pass"
    told = f"{both}\nfrom worker.planner.contention import Turns\nbefore = Turns.now()\n{spin}\n"
    with subprocess.Popen([sys.executable, "-c", f"{both}\nwhile True: pass"]) as other:
        try:
            said = subprocess.run(
                [sys.executable, "-c", f"{told}print(Turns.now().share_since(before))"],
                check=True,
                capture_output=True,
                text=True,
            )
        finally:
            other.kill()
    assert float(said.stdout) < 0.75


def test_gpus_that_stream_are_no_faster_together_than_the_images_are_read():
    rest = Peak(images=0, bytes=1000)
    found = seen(evaluation=(rest, Peak(images=256, bytes=1256)), free=10**4, device="cuda", batch_size=64, devices=32)
    assert (found["images_per_second"], found["eta"]["validate"]) == (1000.0, round(found["recipe"]["epochs"] * 0.2, 1))


@pytest.mark.parametrize(("device", "sharing"), [("cpu", 1), ("cuda", 4)])
def test_gpus_that_share_a_batch_have_each_its_memory_and_its_speed(device: str, sharing: int):
    """Four of them took 8 images each; four processes on a CPU have one memory and one set of cores."""
    rest = Peak(images=0, bytes=1000)
    figures = {"evaluation": (rest, Peak(images=256, bytes=1256)), "free": 10**4, "device": device}
    found, one = (seen(**figures, batch_size=32, devices=devices) for devices in (4, 1))
    assert found["images_per_second"] == 40.0 * sharing
    assert found["eta"]["train"] == pytest.approx(one["eta"]["train"] / sharing, abs=0.1)
    assert found["eta"]["validate"] == pytest.approx(one["eta"]["validate"] / sharing, abs=0.1)
    assert found["eta"]["test"] == one["eta"]["test"] == 3.0  # by one of them alone
    assert found["memory"]["peak_bytes"] == 1000 + 32 // sharing * 125
    assert found["largest_batch_size"] == min(one["largest_batch_size"] * sharing, 1000)
    said = [each["message"] for each in found["problems"] if each["code"] == "measured_otherwise"]
    assert any(f"counted {sharing} times" in message for message in said) is (sharing > 1)
    assert any("steps of 8 images" in message for message in said) is (sharing == 1)


def test_the_peak_meter_sees_what_is_held_for_a_moment():
    meter = memory.PeakMeter(torch.device("cpu"))
    meter.reset()
    before = meter.read()
    with mmap.mmap(-1, 64 * 2**20) as pages:  # new ones: what malloc gives may lie in memory already
        pages.write(b"1" * len(pages))
    assert meter.read() - before > 50 * 2**20
    assert 0 < memory.room(torch.device("cpu")).free <= memory.room(torch.device("cpu")).total


def test_the_time_of_a_run_is_that_of_its_parts_and_ends_with_max_seconds():
    counted = Sizes(train=1000, val=100, test=200, batch=100)
    speed = Speed(train=50.0, evaluate=100.0, test=50.0, load=1000.0, save=0.5, start=5.0)
    found = run_seconds(recipe(epochs=3), counted, speed, streamed=False)
    around = {"start": 5.0, "load": 1.3, "test": 6.0, "report": 3.0}
    assert found == {**around, "train": 60.0, "validate": 3.0, "save": 1.5, "total": 79.8}
    cut = run_seconds(recipe(epochs=3, max_seconds=1.3 + 64.5 / 2), counted, speed, streamed=False)
    assert cut == {**around, "train": 30.0, "validate": 2.0, "save": 0.8, "total": 48.0}


SAVED = Sizes(train=1000, val=100, test=0, batch=100)  # ten steps an epoch


@pytest.mark.parametrize(
    ("checkpoint_seconds", "step", "save", "expected"),
    [
        (0, 1.0, 0.1, 30),  # behind each step; the last one's is that of the epoch's end
        (4, 1.0, 0.1, 3 * 3),  # at steps 4 and 8, and at the end
        (60, 1.0, 0.1, 3),
        (60, 1.0, 0.7, 2),  # the first epoch's end, whatever a save takes, and the last's: 12 s are no 20 saves
        (11, 1.0, 0.7, 3),
        (20, 1.0, 100.0, 3),  # the first one's end; within the third, behind its eighth step; its end
    ],
)
def test_as_many_checkpoints_are_counted_as_the_loop_writes(checkpoint_seconds, step, save, expected):
    chosen = recipe(epochs=3, checkpoint_seconds=checkpoint_seconds)
    assert saves(chosen, SAVED, step=step, validation=2.0, save=save) == expected


def test_a_save_behind_every_step_makes_a_run_longer():
    speed = Speed(train=100.0, evaluate=100.0, test=100.0, load=1000.0, save=0.5)
    rare, often = (
        run_seconds(recipe(epochs=3, checkpoint_seconds=seconds), SAVED, speed, streamed=False) for seconds in (60, 0)
    )
    assert (rare["save"], often["save"]) == (1.5, 15.0)
    assert often["total"] == pytest.approx(rare["total"] + 13.5)


def test_streamed_images_are_read_for_themselves_where_their_mean_or_std_is_measured_and_by_each_device():
    counted = Sizes(train=1000, val=100, test=200, batch=100)
    speed = Speed(train=50.0, evaluate=100.0, test=50.0, load=1000.0)

    def load(*, streamed: bool, **overrides: object) -> float:
        return run_seconds(recipe(**overrides), counted, speed, streamed=streamed)["load"]

    assert [load(streamed=True), load(streamed=True, mean=None), load(streamed=True, std=None)] == [0.0, 1.0, 1.0]
    assert load(streamed=True, mean=None, devices=2) == 2.0
    assert (load(streamed=False, mean=None), load(streamed=False, devices=2)) == (1.3, 2.4)


def test_a_gpu_holds_the_images_of_train_and_on_a_cpu_each_process_those_of_val_too():
    """Random crops come from larger images than those that are validated on."""
    counted = Sizes(train=1000, val=100, test=200, batch=100)
    chosen = recipe(crop_padding=0, random_resized_crop=[0.5, 1.0], resize=36, devices=2)
    train, val = 1000 * 36**2, 100 * 28**2
    held = [memory.data_bytes(chosen, counted, device_type="cuda", free=free) for free in (2 * train, 2 * train - 1)]
    assert held == [train, 0]
    assert memory.data_bytes(chosen, counted, device_type="cpu", free=10**9) == 2 * (train + val)


@pytest.mark.parametrize(
    ("to_come", "at_least", "at_most"), [(0, 95, 100), (500, 48, 50), (950, 5, 5), (996, None, None)]
)
def test_the_largest_batch_is_tried_beside_the_images_that_will_lie_on_the_device(
    monkeypatch: pytest.MonkeyPatch, to_come: int, at_least: int | None, at_most: int | None
):
    """A device of 1,000 bytes, of which an image takes ten."""
    taken: list[weakref.ref[torch.Tensor]] = []
    empty = torch.empty

    def taking(size: int, **options: object) -> torch.Tensor:
        tensor = empty(size, **options)
        taken.append(weakref.ref(tensor))
        return tensor

    class Tried(Measurement):
        def __init__(self) -> None:
            self._peaks, self._too_many, self._to_come = {8: 80}, None, to_come
            self._device, self._meter = torch.device("cpu"), memory.PeakMeter(torch.device("cpu"))

        def _loop(self, batch_size: int, *, accumulate: int = 1) -> int:  # type: ignore[override]
            return batch_size

        def _fitting(self, loop: int, at_once: int) -> float | None:  # type: ignore[override]
            beside = taken[0]()
            assert beside is not None
            return 0.1 if 10 * at_once + len(beside) <= 1000 else None

    monkeypatch.setattr(torch, "empty", taking)
    found = Tried()._most_that_fit(8192, time.monotonic() + 60)
    assert taken[0]() is None
    if at_least is None or at_most is None:
        assert found is None
    else:
        assert found is not None
        assert at_least <= found <= at_most


def test_the_slowest_of_rates_is_not_rounded_to_nothing():
    assert (rounded(0.03456), rounded(12_345.6)) == (0.03456, 12_350.0)


def test_a_measurement_counts_for_another_plan_where_the_steps_are_the_same_work():
    one = measured_key(recipe(), "sha256:1", "here")
    same = {"lr": 0.5, "epochs": 99, "seed": 3, "patience": 2, "schedule": "cosine", "label_smoothing": 0.1}
    for name, value in same.items():
        assert measured_key(recipe(**{name: value}), "sha256:1", "here") == one, name
    other = {
        "batch_size": 32,
        "precision": "bf16",
        "crop_padding": 0,
        "optimizer": "adamw",
        "network": "cifar/resnet20",
        "val_fraction": 0.3,  # the largest batch is tried beside the images that are left in train
    }
    for name, value in other.items():
        assert measured_key(recipe(**{name: value}), "sha256:1", "here") != one, name
    assert measured_key(recipe(), "sha256:2", "here") != one
    assert measured_key(recipe(), "sha256:1", "there") != one


def test_plans_that_say_different_things_are_different():
    question = PlanRequest(dataset="ds_1", recipe="mnist")
    others = [
        plan_key(question.model_copy(update=change), recipe(), "sha256:1", "here")
        for change in ({}, {"curve": True}, {"max_seconds": 9.0}, {"dataset": "ds_2"})
    ]
    others.append(plan_key(question, recipe(lr=0.3), "sha256:1", "here"))
    asked = question.model_copy(update={"overrides": {"step_factor": 0.1}})  # the default, and without effect
    others.append(plan_key(asked, recipe(), "sha256:1", "here"))
    assert len(set(others)) == 6
