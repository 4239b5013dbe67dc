"""One training on two devices: here two processes on the CPU, joined by gloo as GPUs are by NCCL."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from job_processes import lines, of
from running import processes_that_name
from squares import squares, write_dataset
from trainer_kit import after_checkpoints, finish, order, trainer
from waiting import wait_for

from models import checkpoint
from models.catalog import Catalog
from models.recipes import RecipeError, resolve
from store.layout import Layout
from worker.job_arguments import JobArguments
from worker.job_process import DISK_FULL, DONE, REFUSED, STOPPED, JobRefused, Stop
from worker.trainer import distributed
from worker.trainer.distributed import World, shares
from worker.trainer.ranks import verdict
from worker.trainer.train import train

_IMAGES, _LABELS = squares(180, seed=0)
_UNEVEN = np.sort(
    np.concatenate([np.flatnonzero(label == _LABELS)[:count] for label, count in enumerate((60, 35, 16))])
)
SPLITS = {"train": (_IMAGES[_UNEVEN], _LABELS[_UNEVEN]), "test": squares(30, seed=1)}
FEATURES = {
    "epochs": 2,
    "batch_size": 22,
    "lr": 0.01,
    "ema_decay": 0.9,
    "crop_padding": 2,
    "cutout": 4,
    "erasing": 0.3,
    "mixup": 0.2,
    "cutmix": 0.5,
    "label_smoothing": 0.05,
    "class_weights": "balanced",
    "accumulate": 2,
    "clip_norm": 5.0,
}


def ranks(run_dir: Path) -> dict[int, int]:
    """Pid of each living rank of a training."""
    found = {}
    for entry in processes_that_name(run_dir):
        pid = int(entry.partition(":")[0])
        with contextlib.suppress(OSError):
            variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            found.update({int(each[5:]): pid for each in variables if each.startswith(b"RANK=")})
    return found


@pytest.mark.timeout(900)  # sixteen processes with torch, one after the other or in pairs
def test_two_devices_learn_what_one_does_and_a_crash_a_stop_and_orders_change_no_bit(layout: Layout, new_job):
    write_dataset(layout, SPLITS)
    whole, hurt = new_job("whole", **FEATURES, devices=2), new_job("hurt", **FEATURES, devices=2, checkpoint_seconds=0)
    code, said = finish(whole)
    assert code == DONE
    assert len(of(said, "result")) == 1  # one of them speaks

    # The loss curve of one device; the weights too, but for the order of summation.
    train(JobArguments(run_dir=new_job("one", **FEATURES), claim=1, data_dir=layout.root, device="cpu"), Stop())
    one, two = (checkpoint.newest(layout.job(name)) for name in ("one", "whole"))
    assert one is not None
    assert two is not None
    for ours, theirs in zip(two.state["history"], one.state["history"], strict=True):
        assert ours["train"]["loss"] == pytest.approx(theirs["train"]["loss"], rel=1e-4)
        assert ours["val"]["loss"] == pytest.approx(theirs["val"]["loss"], rel=1e-3)
    for name, tensor in one.tensors.items():
        noise = 2e-2 if name.startswith("optimizer/") else 2e-3  # a gradient's, after eight steps of ReLUs that flip
        assert torch.allclose(tensor.double(), two.tensors[name].double(), rtol=1e-2, atol=noise), name

    # A rank's crash is the job's, and takes the other rank with it.
    with trainer(hurt) as process:
        for line in lines(process):
            if line["type"] == "checkpoint":
                others = ranks(hurt)
                assert sorted(others) == [0, 1]
                os.kill(others[1], signal.SIGKILL)
                break
        assert process.wait() == -signal.SIGKILL
    assert ranks(hurt) == {}

    # Orders reach both, and so does a stop; both end in a checkpoint that rank 0 wrote.
    order(hurt / "claim-2", version=1, checkpoint=1)
    with trainer(hurt, "--claim", "2") as process:
        stopped = after_checkpoints(process, 2, signal.SIGTERM)
        assert process.wait() == STOPPED
    assert of(stopped, "checkpoint")[0]["asked"] == 1
    reached = of(stopped, "checkpoint")[-1]
    assert checkpoint.load(hurt / reached["path"]).step == reached["step"]

    code, said = finish(hurt)
    assert code == DONE
    assert of(said, "log")[0]["step"] == reached["step"]
    weights = "model/weights.safetensors"
    assert (hurt / "claim-3" / weights).read_bytes() == (whole / "claim-1" / weights).read_bytes()
    assert not list(hurt.glob("claim-*/.*"))


@pytest.mark.timeout(600)
def test_two_devices_thaw_a_model_and_stream_files_as_one_does(layout: Layout, new_job):
    Catalog(layout.models).seed()
    write_dataset(layout, {"train": squares(72, seed=0, size=16, channels=3)}, encoded=True)
    choices = {
        "recipe": "cifar10-resnet20",
        "init": {"model": "cifar10-resnet20@1"},
        "freeze_epochs": 1,
        "epochs": 2,
        "image_size": 16,
        "crop_padding": 1,
        "loader": "stream",
        "lr": 0.01,
    }
    histories = []
    for devices in (1, 2):
        job = new_job(f"thaw{devices}", **choices, devices=devices)
        code, said = finish(job)
        assert code == DONE
        assert [line["new_head"] for line in of(said, "log")] == [True]
        histories.append(of(said, "epoch"))
    assert len(histories[0]) == 2
    for one, two in zip(*histories, strict=True):
        assert two["train"]["loss"] == pytest.approx(one["train"]["loss"], rel=1e-3)


def test_torchrun_starts_the_same_training(layout: Layout, new_job, here):
    """As the module `worker.trainer.ranks` says: one rank speaks, and the losses are those of one device."""
    write_dataset(layout, SPLITS)
    job = new_job("torchrun", **{**FEATURES, "epochs": 1}, devices=2)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "worker.trainer", str(job), "--claim", "1", "--device", "cpu"]
    ended = subprocess.run(command, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)
    assert ended.returncode == DONE, ended.stderr.decode()
    said = [json.loads(line) for line in ended.stdout.splitlines()]
    assert len(of(said, "result")) == 1
    (ours,) = of(said, "epoch")
    (theirs,) = of(here(new_job("one", **{**FEATURES, "epochs": 1})), "epoch")
    assert ours["train"]["loss"] == pytest.approx(theirs["train"]["loss"], rel=1e-4)
    assert ours["val"]["loss"] == pytest.approx(theirs["val"]["loss"], rel=1e-3)
    assert ranks(job) == {}


def test_the_ranks_die_with_their_parent(layout: Layout, new_job):
    write_dataset(layout, SPLITS)
    job = new_job("orphans", **FEATURES, devices=2)
    with trainer(job) as process:
        wait_for(lambda: len(ranks(job)) == 2)
        process.send_signal(signal.SIGKILL)
        wait_for(lambda: not ranks(job))


@pytest.mark.parametrize(
    ("ends", "told"),
    [
        ([(1, DONE), (0, DONE)], (0, DONE)),
        ([(1, STOPPED), (0, STOPPED)], (1, STOPPED)),
        ([(1, -signal.SIGKILL), (0, 1)], (1, -signal.SIGKILL)),
        ([(0, DISK_FULL), (1, 1)], (0, DISK_FULL)),
        ([(0, 1), (1, REFUSED)], (1, REFUSED)),
        ([(1, DONE), (0, 1)], (0, 1)),
        ([(0, 1), (1, STOPPED)], (1, STOPPED)),  # stopped while images load, before the other came to look
        ([(0, 1), (1, -signal.SIGTERM)], (1, -signal.SIGTERM)),
        ([(1, STOPPED), (0, REFUSED)], (0, REFUSED)),
    ],
)
def test_the_rank_whose_end_explains_the_others_decides(ends: list[tuple[int, int]], told: tuple[int, int]):
    assert verdict(ends) == told


@pytest.mark.parametrize(("batch", "parts", "size"), [(22, 2, 2), (7, 1, 3), (13, 3, 4)])
def test_the_ranks_share_every_part_of_a_batch_and_a_mixed_image_has_its_partner(batch: int, parts: int, size: int):
    plain = [shares(batch, parts=parts, world=World(rank, size), mixed=False) for rank in range(size)]
    mixed = [shares(batch, parts=parts, world=World(rank, size), mixed=True) for rank in range(size)]
    for number, whole in enumerate(shares(batch, parts=parts, world=World(), mixed=True)):
        assert np.concatenate([rank[number] for rank in plain]).tolist() == whole.tolist()
        partners = dict(zip(whole.tolist(), np.roll(whole, 1).tolist(), strict=True))
        for own, on_top in zip(plain, mixed, strict=True):
            assert on_top[number].tolist() == [partners[own[number][0]], *own[number]]


def test_more_devices_than_there_are_and_senseless_recipes_are_refused(monkeypatch: pytest.MonkeyPatch):
    assert not torch.cuda.is_available() or torch.cuda.device_count() < 64
    for device in ("cpu", "auto", "cuda:3"):
        with pytest.raises(JobRefused, match="64 devices") as caught:
            distributed._own_device(device, 64, 0)
        assert caught.value.code == "too_few_devices"
        assert "Set devices to" in caught.value.hint
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(JobRefused, match="2 devices, 3 processes"), distributed.joined(devices=2, device="cpu"):
        pass
    with pytest.raises(RecipeError, match="compile"):
        resolve("mnist", {"devices": 2, "compile": True})
    with pytest.raises(RecipeError, match="accumulate times devices"):
        resolve("mnist", {"devices": 2, "batch_size": 6, "accumulate": 4})
