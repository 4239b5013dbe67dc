"""What a new training is asked with: values as JSON has them, and fields that follow from others."""

from typing import Any

import pytest

from models.recipes import RECIPES, RecipeError, completed, override, resolve
from models.recipes.recipe import Recipe
from resnetd.commands.options import parse_setting
from worker.trainer.optimizer import learning_rate


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("epochs", [1, 2, 3, 7, 10_000])
def test_every_recipe_takes_any_number_of_epochs_with_a_start_in_proportion_to_fewer(name: str, epochs: int):
    made, before = resolve(name, completed(name, {"epochs": epochs})), RECIPES[name]
    share = min(epochs / before.epochs, 1)
    assert made.warmup_epochs == pytest.approx(before.warmup_epochs * share, abs=0.006)
    assert made.freeze_epochs == pytest.approx(before.freeze_epochs * share, abs=0.006)
    assert made.epochs == epochs


def test_what_follows_is_named_in_the_spec_and_what_is_named_does_not_follow():
    assert completed("finetune", {"epochs": 5}) == {"epochs": 5, "warmup_epochs": 0.5, "freeze_epochs": 1.0}
    assert completed("finetune", {"epochs": 20}) == {"epochs": 20}
    asked = {"epochs": 5, "warmup_epochs": 2, "freeze_epochs": 0}
    assert completed("finetune", asked) == asked
    assert completed("mnist", {"lr": 1}) == {"lr": 1}
    with pytest.raises(RecipeError, match="warmup_epochs must not be more"):
        completed("mnist", {"epochs": 1, "warmup_epochs": 2})


@pytest.mark.parametrize("schedule", ["constant", "cosine", "one_cycle"])
def test_another_schedule_than_step_has_no_step_epochs(schedule: str):
    made = resolve("imagenet", completed("imagenet", {"schedule": schedule, "epochs": 30}))
    assert (made.schedule, made.step_epochs) == (schedule, ())
    with pytest.raises(RecipeError, match="step_epochs belongs to"):
        completed("imagenet", {"schedule": schedule, "step_epochs": [3]})


@pytest.mark.parametrize("name", ["d2l-fashion-mnist", "imagenet"])
def test_one_cycle_rises_for_three_tenths_where_the_recipe_has_no_warmup(name: str):
    made = resolve(name, completed(name, {"schedule": "one_cycle", "epochs": 10}))
    rates = [learning_rate(made, step=step, steps_per_epoch=10) for step in range(100)]
    assert rates[:30] == sorted(rates[:30])
    assert rates[30:] == sorted(rates[30:], reverse=True)
    assert rates[0] < made.lr / 30
    assert completed(name, {"schedule": "one_cycle", "warmup_epochs": 0})["warmup_epochs"] == 0
    assert "warmup_epochs" not in completed("finetune", {"schedule": "one_cycle"})


def test_the_best_epoch_is_kept_where_patience_ends_the_training():
    assert completed("cifar10-fast", {"patience": 3}) == {"patience": 3, "keep": "best"}
    assert completed("cifar10-fast", {"patience": 3, "keep": "last"})["keep"] == "last"
    assert "keep" not in completed("cifar10-fast", {"patience": None})
    assert completed("mnist", {"patience": 3}) == {"patience": 3}


@pytest.mark.parametrize("name", RECIPES)
def test_adamw_needs_a_learning_rate_of_its_own_and_the_refusal_names_one(name: str):
    with pytest.raises(RecipeError, match=f"lr of {RECIPES[name].lr:g} is for") as caught:
        completed(name, {"optimizer": "adamw"})
    assert (caught.value.field, caught.value.hint.startswith("Set lr=0.001 ")) == ("overrides.optimizer", True)
    with pytest.raises(RecipeError, match=r"0\.4 is far too much"):
        completed(name, {"optimizer": "adamw", "lr": 0.4})
    assert completed(name, {"optimizer": "adamw", "lr": 0.001})
    assert completed(name, {"optimizer": "sgd"}) == {"optimizer": "sgd"}


@pytest.mark.parametrize(
    "asked",
    [
        {"batch_size": True},
        {"batch_size": "64"},
        {"epochs": 10.0},
        {"epochs": "3"},
        {"epochs": None},
        {"lr": "0.1"},
        {"lr": True},
        {"lr": float("nan")},
        {"lr": float("inf")},
        {"deterministic": "yes"},
        {"deterministic": 1},
        {"channels": "1"},
        {"mean": [True]},
        {"mean": 0.5},
        {"step_epochs": ["3"]},
        {"network": 3},
        {"init": "imagenet"},
    ],
    ids=str,
)
def test_a_value_of_another_kind_is_refused_with_what_the_field_takes(asked: dict[str, Any]):
    (name,) = asked
    with pytest.raises(RecipeError) as caught:
        completed("cifar10-resnet20", asked)
    assert caught.value.field.startswith(f"overrides.{name}")
    assert caught.value.hint.startswith(f"{name} takes " if name != "network" else "Networks: ")


def test_integers_do_for_numbers_and_lists_for_lists_of_them():
    asked = {"lr": 1, "mean": [0, 1, 0.5], "random_resized_crop": [1, 1], "crop_padding": 0, "resize": None}
    assert completed("cifar10-fast", asked) == asked
    assert resolve("cifar10-fast", asked).mean == (0, 1, 0.5)


def test_values_are_what_the_command_line_makes_of_its_texts():
    texts = ("lr=0.1", "epochs=3", "mean=[0.5]", "resize=null", "deterministic=true", 'init={"model": "a@1"}', "seed=7")
    assert completed("mnist", dict(map(parse_setting, (*texts, "schedule=cosine"))))["init"] == {"model": "a@1"}
    with pytest.raises(RecipeError) as caught:
        completed("mnist", dict([parse_setting("deterministic=True")]))
    assert caught.value.hint.startswith("deterministic takes true or false.")


def test_what_a_stored_spec_says_means_what_it_meant_when_it_was_accepted():
    """Specs from before `completed`: their runs would begin anew if they meant another recipe."""
    assert resolve("mnist", {"lr": "0.1", "batch_size": True, "deterministic": "yes"}).lr == 0.1
    assert resolve("mnist", {"optimizer": "adamw"}).lr == RECIPES["mnist"].lr
    assert resolve("mnist", {"epochs": 3}).warmup_epochs == RECIPES["mnist"].warmup_epochs
    assert resolve("cifar10-fast", {"patience": 3}).keep == "last"
    assert resolve("d2l-fashion-mnist", {"schedule": "one_cycle"}).warmup_epochs == 0


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("finetune", {"epochs": 3, "patience": 2}),
        ("imagenet", {"schedule": "one_cycle", "epochs": 5, "patience": 1}),
        ("finetune", {"image_size": 64}),
    ],
)
def test_a_spec_that_is_asked_for_again_is_the_same(name: str, asked: dict[str, Any]):
    once = completed(name, asked)
    assert completed(name, once) == once


def test_epochs_that_change_on_the_way_leave_the_steps_of_the_warmup_as_they_were():
    submitted = resolve("mnist", completed("mnist", {"epochs": 10}))
    changed: Recipe = override(submitted, {"epochs": 5})
    steps = range(int(submitted.warmup_epochs * 100))
    before, after = (
        [learning_rate(recipe, step=step, steps_per_epoch=100) for step in steps] for recipe in (submitted, changed)
    )
    assert before == after
