import subprocess
import sys

import pytest

from models.recipes import RECIPES, RecipeError, resolve


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_resolves_to_itself_without_overrides(name: str):
    assert resolve(name, {}) == RECIPES[name]


def test_an_override_replaces_its_field_alone():
    changed = resolve("mnist", {"epochs": 3})
    assert changed == RECIPES["mnist"].model_copy(update={"epochs": 3})


@pytest.mark.parametrize(
    ("recipe", "overrides", "field", "says"),
    [
        ("mnits", {}, "recipe", "nearest is 'mnist'"),
        ("mnist", {"lable_smoothing": 0.1}, "overrides.lable_smoothing", "nearest is 'label_smoothing'"),
        ("mnist", {"epochs": 0}, "overrides.epochs", "greater than or equal to 1"),
        ("mnist", {"lr": float("nan")}, "overrides.lr", "finite"),
        ("mnist", {"optimizer": "lion"}, "overrides.optimizer", "nesterov"),
        ("mnist", {"image_size": 32}, "overrides", "image_size must be 28"),
        ("mnist", {"channels": 3}, "overrides", "mean needs 3 values"),
        ("mnist", {"network": "mnist/residul"}, "overrides.network", "nearest is 'mnist/residual'"),
        ("mnist", {"warmup_epochs": 99}, "overrides", "warmup_epochs must not be more"),
        ("mnist", {"cutout": 30}, "overrides", "must fit in image_size"),
        ("mnist", {"schedule": "step"}, "overrides", "step_epochs belongs to"),
        ("mnist", {"accumulate": 200}, "overrides", "accumulate must not be more"),
        ("cifar10-resnet20", {"resize": 16}, "overrides", "resize must be at least"),
    ],
)
def test_what_does_not_fit_is_named(recipe: str, overrides: dict[str, object], field: str, says: str):
    with pytest.raises(RecipeError) as caught:
        resolve(recipe, overrides)
    assert caught.value.field == field
    assert says in str(caught.value)
    assert caught.value.hint


def test_recipes_are_read_without_torch():
    code = "import models.recipes, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
