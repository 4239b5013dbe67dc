"""Names that a recipe does not know are answered with those that were meant, or with none."""

import pytest

from models.recipes import Recipe, RecipeError, resolve
from models.recipes.synonyms import _ALSO_CALLED, _FIELDS, meant


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("learning_rate", "lr"),
        ("nesterov", "optimizer"),
        ("ema", "ema_decay"),
        ("flip", "horizontal_flip"),
        ("wd", "weight_decay"),
        ("gamma", "step_factor"),
        ("early_stopping", "patience"),
        ("milestones", "step_epochs"),
        ("amp", "precision"),
        ("time_limit", "max_seconds"),
        ("grad_clip", "clip_norm"),
        ("num_epochs", "epochs"),
        ("mixup_alpha", "mixup"),
        ("warmup", "warmup_epochs"),
        ("Learning-Rate", "lr"),
        ("lable_smoothing", "label_smoothing"),
        ("weigths", "init"),
    ],
)
def test_a_name_of_another_library_a_part_of_one_and_a_misspelt_one_mean_a_field(name: str, field: str):
    with pytest.raises(RecipeError, match=f"no field '{name}'; the nearest is '{field}'") as caught:
        resolve("mnist", {name: 1})
    assert caught.value.field == f"overrides.{name}"
    assert caught.value.hint.startswith(f"{field} takes ")
    assert "GET /v1/recipe-fields" in caught.value.hint


@pytest.mark.parametrize("name", ["dropout", "drop_path", "color_jitter", "eps", "foo", "x", ""])
def test_nothing_is_proposed_for_what_a_recipe_does_not_have(name: str):
    with pytest.raises(RecipeError, match=f"no field '{name}'$") as caught:
        resolve("mnist", {name: 1})
    assert caught.value.hint.startswith("GET /v1/recipe-fields")


def test_a_part_of_several_fields_means_each():
    assert meant("size") == ["image_size", "batch_size"]


def test_the_names_of_others_are_each_of_one_field_that_there_is_and_are_no_fields_themselves():
    assert _ALSO_CALLED.keys() <= Recipe.model_fields.keys()
    assert not _FIELDS.keys() & Recipe.model_fields.keys()
    assert len(_FIELDS) == sum(len(others.split()) for others in _ALSO_CALLED.values())


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"optimizer": "muon"}, "two-dimensional"),
        ({"optimizer": "LAMB"}, "torch has no LAMB"),
        ({"schedule": "cosine_annealing"}, "nearest is 'cosine'"),
        ({"optimizer": "sgd_nesterov"}, "nearest is 'nesterov'"),
    ],
)
def test_what_a_field_does_not_offer_is_answered_with_what_it_does(overrides: dict[str, str], says: str):
    with pytest.raises(RecipeError, match=says) as caught:
        resolve("mnist", overrides)
    assert "takes" in caught.value.hint


@pytest.mark.parametrize("overrides", [{"optimizer": "lion"}, {"schedule": "linear"}, {"init": {"path": "a"}}], ids=str)
def test_no_value_is_proposed_where_none_is_like_it(overrides: dict[str, object]):
    with pytest.raises(RecipeError) as caught:
        resolve("mnist", overrides)
    assert "nearest" not in str(caught.value)
