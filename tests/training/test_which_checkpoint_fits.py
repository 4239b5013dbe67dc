"""Which recipe a checkpoint belongs to, and a test-time flip that changes nothing of what is learned."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from job_processes import of
from squares import squares, write_dataset

from models import runtime
from models.recipes import Recipe, resolve
from store.layout import Layout
from worker.trainer.spec import fingerprint_of

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


def test_a_test_time_flip_is_validated_evaluated_and_served_and_changes_nothing_of_what_is_learned(
    layout: Layout, new_job, here
):
    write_dataset(layout, SPLITS)
    plain = of(here(new_job("run", horizontal_flip=True, epochs=2)), "result")[0]["metrics"]
    said = here(with_overrides(layout.job("run"), test_time_flip=True), claim=2)
    assert of(said, "epoch") == []  # all was learned by claim 1
    assert of(said, "log")[0]["message"].startswith("resumed at step")
    metrics = of(said, "result")[0]["metrics"]
    assert metrics["log_loss"] != plain["log_loss"]

    first, second = (layout.job("run") / f"claim-{claim}" / "model" for claim in (1, 2))
    assert (first / "weights.safetensors").read_bytes() == (second / "weights.safetensors").read_bytes()
    served = runtime.load(second, "cpu")
    assert served.manifest.test_time_flip
    images, labels = SPLITS["test"]
    both = [runtime.load(first, "cpu").logits(view) for view in (images, np.ascontiguousarray(images[:, :, ::-1]))]
    np.testing.assert_allclose(served.logits(images), np.mean(both, axis=0), atol=1e-4)
    assert int((served.logits(images).argmax(1) == labels).sum()) == metrics["correct"]

    fresh = of(here(new_job("fresh", horizontal_flip=True, epochs=2, test_time_flip=True)), "epoch")
    before = json.loads((layout.job("run") / "claim-1" / "artifacts" / "metrics.json").read_bytes())["history"]
    assert [epoch["train"] for epoch in fresh] == [epoch["train"] for epoch in before]
    assert fresh[-1]["val"]["loss"] != before[-1]["val"]["loss"]


class NextRecipe(Recipe):
    """The recipe of a later revision."""

    new: bool = False


def test_a_field_that_the_software_comes_to_know_loses_no_run(layout: Layout):
    dataset = write_dataset(layout, SPLITS)
    recipe = resolve("finetune", {"epochs": 3})
    later = NextRecipe.model_validate(recipe.model_dump())
    assert fingerprint_of(later, dataset) == fingerprint_of(recipe, dataset)
    for changes in ({"new": True}, {"epochs": 4}, {"seed": 1}):
        assert fingerprint_of(later.model_copy(update=changes), dataset) != fingerprint_of(recipe, dataset)
    other = dataset.model_copy(update={"digest": "sha256:" + "1" * 64})
    assert fingerprint_of(recipe, other) != fingerprint_of(recipe, dataset)


@pytest.mark.parametrize("how", [{"loader": "stream"}, {"workers": 2}, {"test_time_flip": True}])
def test_how_images_come_and_how_the_network_is_asked_do_not_count(layout: Layout, how: dict[str, Any]):
    dataset = write_dataset(layout, SPLITS)
    recipe = resolve("fashion-mnist-small", {})
    assert fingerprint_of(resolve("fashion-mnist-small", how), dataset) == fingerprint_of(recipe, dataset)
