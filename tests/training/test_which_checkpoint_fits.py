"""Which recipe a checkpoint belongs to, and what a test-time flip changes of a training."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from job_processes import of
from squares import squares, write_dataset

from models import checkpoint_files, runtime
from models.manifest import NetworkSpec
from models.recipes import Recipe, resolve
from store.layout import Layout
from worker.trainer.distributed import World
from worker.trainer.fresh import fresh_state
from worker.trainer.spec import identity, is_of
from worker.trainer.train import _resume

SPLITS = {"train": squares(96, seed=0), "test": squares(30, seed=1)}


def with_overrides(run_dir: Path, **overrides: Any) -> Path:
    """The same job, as if it had been asked for otherwise."""
    spec = json.loads((run_dir / "spec.json").read_bytes())
    spec["overrides"].update(overrides)
    (run_dir / "spec.json").write_text(json.dumps(spec))
    return run_dir


def test_a_run_whose_recipe_is_another_begins_anew_and_says_so(layout: Layout, new_job, here):
    write_dataset(layout, SPLITS)
    here(new_job("run", epochs=1))
    said = here(with_overrides(layout.job("run"), lr=0.01), claim=2)
    assert [warning["code"] for warning in of(said, "warning")] == ["other_checkpoint"]
    assert [epoch["epoch"] for epoch in of(said, "epoch")] == [1]


def test_of_several_ranks_one_removes_checkpoints_that_are_another_recipes(layout: Layout, new_job, here):
    """They would remove them under each other's hands."""
    dataset = write_dataset(layout, SPLITS)
    run_dir = new_job("run", epochs=1)
    here(run_dir)
    other = resolve("fashion-mnist-small", {"lr": 0.01})
    spec = NetworkSpec(name=other.network, num_classes=3, in_channels=1)
    state = fresh_state(spec, other, torch.device("cpu"), World())
    for rank, left in ((1, True), (0, False), (1, False)):
        assert not _resume(state, run_dir, other, dataset, World(rank, 2))
        assert bool(checkpoint_files.found(run_dir)) is left


def test_a_test_time_flip_is_validated_evaluated_and_served_and_changes_nothing_of_what_is_learned(
    layout: Layout, new_job, here
):
    write_dataset(layout, SPLITS)
    models, results, epochs = {}, {}, {}
    for name, flip in (("plain", False), ("flipped", True)):
        said = here(new_job(name, horizontal_flip=True, keep="last", epochs=2, test_time_flip=flip))
        models[name], epochs[name] = layout.job(name) / "claim-1" / "model", of(said, "epoch")
        results[name] = of(said, "result")[0]["metrics"]
    weights = [(model / "weights.safetensors").read_bytes() for model in models.values()]
    assert weights[0] == weights[1]
    for learned, flipped in zip(epochs["plain"], epochs["flipped"], strict=True):
        assert learned["train"] == flipped["train"]
        assert learned["val"]["loss"] != flipped["val"]["loss"]

    served = runtime.load(models["flipped"], "cpu")
    assert served.manifest.test_time_flip
    images, labels = SPLITS["test"]
    plain = runtime.load(models["plain"], "cpu")
    both = [plain.logits(view) for view in (images, np.ascontiguousarray(images[:, :, ::-1]))]
    np.testing.assert_allclose(served.logits(images), np.mean(both, axis=0), atol=1e-4)
    assert int((served.logits(images).argmax(1) == labels).sum()) == results["flipped"]["correct"]
    assert results["flipped"]["log_loss"] != results["plain"]["log_loss"]


class NextRecipe(Recipe):
    """The recipe of a later revision."""

    new: bool = False


def test_a_field_that_the_software_comes_to_know_loses_no_run(layout: Layout):
    dataset = write_dataset(layout, SPLITS)
    recipe = resolve("finetune", {"epochs": 3})
    stored = json.loads(json.dumps(identity(recipe, dataset)))
    later = NextRecipe.model_validate(recipe.model_dump())
    assert is_of(stored, later, dataset)
    for changes in ({"new": True}, {"epochs": 4}, {"seed": 1}, {"init": None}):
        assert not is_of(stored, later.model_copy(update=changes), dataset)
    assert not is_of(stored, recipe, dataset.model_copy(update={"digest": "sha256:" + "1" * 64}))


def test_a_field_that_the_software_no_longer_knows_or_another_default_begin_a_run_anew(layout: Layout):
    dataset = write_dataset(layout, SPLITS)
    recipe = resolve("fashion-mnist-small", {})
    stored = identity(recipe, dataset)
    assert is_of(stored, recipe, dataset)
    assert not is_of({**stored, "recipe": {**stored["recipe"], "dropout": 0.5}}, recipe, dataset)
    assert not is_of({**stored, "recipe": {**stored["recipe"], "weight_decay": 1e-4}}, recipe, dataset)
    assert not is_of({}, recipe, dataset)


def test_a_run_that_was_to_validate_on_other_images_begins_anew(layout: Layout):
    """When the seed chose them, it has learned from those that are held out now."""
    recipe = resolve("fashion-mnist-small", {})
    carved = write_dataset(layout, SPLITS)
    given = write_dataset(layout, {**SPLITS, "val": SPLITS["test"]}, name="ds_with_val")
    for dataset, resumed in ((carved, False), (given, True)):
        stored = json.loads(json.dumps(identity(recipe, dataset)))
        assert is_of(stored, recipe, dataset)
        del stored["hold_out"]
        assert is_of(stored, recipe, dataset) is resumed


@pytest.mark.parametrize("how", [{"loader": "stream"}, {"workers": 2}])
def test_how_images_come_does_not_count(layout: Layout, how: dict[str, Any]):
    dataset = write_dataset(layout, SPLITS)
    stored = identity(resolve("fashion-mnist-small", {}), dataset)
    assert is_of(stored, resolve("fashion-mnist-small", how), dataset)
