import json
import math
import re
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models import get_model_weights

from models.manifest import NetworkSpec
from models.networks.registry import NETWORKS, build
from models.recipes import RECIPES, Init, Recipe, RecipeError, override, resolve
from worker.trainer import augment, freezing, optimizer
from worker.trainer.loss import Targets, cross_entropy
from worker.trainer.optimizer import learning_rate

NEEDED = {
    "d2l-fashion-mnist",
    "fashion-mnist",
    "fashion-mnist-small",
    "mnist",
    "mnist-gated",
    "cifar10-resnet20",
    "cifar10-fast",
    "cifar10-best",
    "imagenet",
    "finetune",
}


def test_a_test_time_flip_is_for_networks_that_know_mirror_images():
    with pytest.raises(RecipeError, match="test_time_flip needs horizontal_flip"):
        resolve("mnist", {"test_time_flip": True})
    assert resolve("mnist", {"test_time_flip": True, "horizontal_flip": True}).test_time_flip
    assert resolve("finetune", {"test_time_flip": True, "horizontal_flip": False}).test_time_flip
    assert not resolve("cifar10-fast", {"horizontal_flip": False}).test_time_flip
    with pytest.raises(RecipeError, match="test_time_flip needs horizontal_flip"):
        resolve("cifar10-fast", {"horizontal_flip": False, "test_time_flip": True})


def test_the_recipes_that_people_ask_for_are_there():
    assert set(RECIPES) == NEEDED


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_resolves_to_itself_without_overrides(name: str):
    assert resolve(name, {}) == RECIPES[name]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_all_that_a_run_needs(name: str):
    """Its learning rate rises to the highest and is one at each step; it starts from nothing that lies here alone."""
    recipe = RECIPES[name]
    rates = [learning_rate(recipe, step=step, steps_per_epoch=20) for step in range(20 * recipe.epochs)]
    assert all(0 < rate <= recipe.lr for rate in rates)
    assert max(rates) == pytest.approx(recipe.lr, rel=0.03)
    assert recipe.mean is not None
    assert recipe.std is not None
    assert recipe.init is None or recipe.init.weights in NETWORKS[recipe.network].weights


@pytest.mark.parametrize("name", RECIPES)
def test_a_step_by_a_recipe_teaches_every_layer(name: str):
    """Of small images, so that it takes no time."""
    size = RECIPES[name].image_size if NETWORKS[RECIPES[name].network].fixed_size else 32
    recipe = resolve(name, {"image_size": size, "resize": None, "init": None, "freeze_epochs": 0})
    torch.manual_seed(recipe.seed)
    network = build(NetworkSpec(name=recipe.network, num_classes=3, in_channels=recipe.channels))
    pixels = torch.randint(0, 256, (6, size, size, recipe.channels), dtype=torch.uint8)
    rows, labels = torch.arange(6), torch.arange(6) % 3
    draws = augment.draw(recipe, samples=6, epoch=0, device=torch.device("cpu"))
    images = augment.batch(pixels, rows, rows, draws, recipe)
    inputs = augment.hide(images.float().permute(0, 3, 1, 2) / 255 - 0.5, rows, draws, cutout=recipe.cutout)
    stepping = optimizer.build(network, recipe)
    freezing.train_mode(network, frozen=False)
    loss = cross_entropy(network(inputs), Targets(labels=labels), smoothing=recipe.label_smoothing, weights=None)
    loss.backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    before = [parameter.detach().clone() for parameter in network.parameters() if parameter.ndim > 1]
    stepping.step()
    after = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    assert all(not torch.equal(old, new) and new.isfinite().all() for old, new in zip(before, after, strict=True))


def test_an_override_replaces_its_field_alone():
    changed = resolve("mnist", {"epochs": 3})
    assert changed == RECIPES["mnist"].model_copy(update={"epochs": 3})


def test_the_books_recipe_is_the_books():
    """Zhang et al., section 8.6: 96 pixels, batches of 256, plain SGD at 0.05, 10 epochs."""
    recipe = RECIPES["d2l-fashion-mnist"]
    assert (recipe.network, recipe.image_size, recipe.batch_size, recipe.epochs) == ("d2l/resnet18", 96, 256, 10)
    assert (recipe.optimizer, recipe.momentum, recipe.lr, recipe.schedule) == ("sgd", 0, 0.05, "constant")
    assert [recipe.weight_decay, recipe.horizontal_flip, recipe.crop_padding, recipe.mean] == [0, False, 0, (0.0,)]


def test_the_imagenet_recipe_is_torchvisions_reference():
    """Its learning rate is a tenth after 30 and a hundredth after 60 of 90 epochs."""
    recipe = RECIPES["imagenet"]
    at = [learning_rate(recipe, step=step, steps_per_epoch=10) for step in (0, 299, 300, 599, 600, 899)]
    assert at == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    assert (recipe.network, recipe.batch_size, recipe.weight_decay) == ("torchvision/resnet50", 256, 1e-4)
    assert recipe.random_resized_crop == (0.08, 1.0)
    assert recipe.horizontal_flip
    assert (recipe.resize, recipe.image_size) == (256, 224)
    assert recipe.canvas == 256


def test_training_images_are_kept_larger_only_where_crops_are_taken_from_them():
    recipe = RECIPES["imagenet"].model_copy(update={"random_resized_crop": None})
    assert recipe.canvas == 224


@pytest.mark.parametrize("entry", NETWORKS.values(), ids=lambda entry: entry.name)
def test_a_networks_ready_made_weights_are_those_that_torchvision_has(entry):
    family, _, name = entry.name.partition("/")
    known = [weights.name for weights in get_model_weights(name)] if family == "torchvision" else []
    assert list(entry.weights) == known


def test_a_start_travels_as_it_was_asked_for():
    recipe = resolve("finetune", {"init": {"model": "pets@3"}})
    assert recipe.init == Init(model="pets@3")
    assert recipe.model_dump(mode="json")["init"] == {"model": "pets@3"}
    assert Recipe.model_validate(recipe.model_dump()) == recipe
    assert resolve("finetune", {"init": None, "freeze_epochs": 0}).init is None


TWO_WAYS = 'init is {"weights"'


@pytest.mark.parametrize(
    ("recipe", "overrides", "field", "says"),
    [
        ("mnits", {}, "recipe", "nearest is 'mnist'"),
        ("mnist", {"lable_smoothing": 0.1}, "overrides.lable_smoothing", "nearest is 'label_smoothing'"),
        ("mnist", {"epochs": 0}, "overrides.epochs", "greater than or equal to 1"),
        ("mnist", {"lr": float("nan")}, "overrides.lr", "finite"),
        ("mnist", {"optimizer": "lion"}, "overrides.optimizer", "none of sgd, nesterov, adamw"),
        ("mnist", {"optimizer": "adam"}, "overrides.optimizer", "nearest is 'adamw'"),
        ("mnist", {"schedule": "cosin"}, "overrides.schedule", "nearest is 'cosine'"),
        ("mnist", {"schedule": "onecycle"}, "overrides.schedule", "nearest is 'one_cycle'"),
        ("mnist", {"precision": "FP16"}, "overrides.precision", "nearest is 'bf16'"),
        ("mnist", {"auto_augment": "randaugment"}, "overrides.auto_augment", "nearest is 'rand'"),
        ("mnist", {"loader": "streaming"}, "overrides.loader", "nearest is 'stream'"),
        ("mnist", {"channels": 4}, "overrides.channels", "1 or 3"),
        ("mnist", {"image_size": 32}, "overrides", "image_size must be 28"),
        ("mnist", {"channels": 3}, "overrides", "mean needs 3 values"),
        ("mnist", {"network": "mnist/residul"}, "overrides.network", "nearest is 'mnist/residual'"),
        ("mnist", {"warmup_epochs": 99}, "overrides", "warmup_epochs must not be more"),
        ("mnist", {"cutout": 30}, "overrides", "must fit in image_size"),
        ("mnist", {"schedule": "step"}, "overrides", "needs step_epochs"),
        ("mnist", {"step_epochs": [3]}, "overrides", "step_epochs belongs to"),
        ("imagenet", {"step_epochs": [60, 30]}, "overrides", "step_epochs must rise"),
        ("imagenet", {"step_epochs": [30, 90]}, "overrides", "before the end of 90 epochs"),
        ("imagenet", {"epochs": 10, "step_epochs": [30, 60]}, "overrides", "before the end of 10 epochs"),
        ("imagenet", {"epochs": 0}, "overrides.epochs", "greater than or equal to 1"),
        ("imagenet", {"epochs": "ten"}, "overrides.epochs", "valid integer"),
        ("finetune", {"image_size": 4}, "overrides.image_size", "greater than or equal to 8"),
        ("finetune", {"image_size": 128, "resize": 100}, "overrides", "resize must be at least"),
        ("imagenet", {"image_size": 32, "batch_size": 1}, "overrides", "where a batch is one image"),
        ("imagenet", {"image_size": 32, "batch_size": 5, "accumulate": 3}, "overrides", "where a part of a batch is"),
        ("mnist", {"accumulate": 200}, "overrides", "accumulate must not be more"),
        ("mnist", {"mean": [33.3], "std": [78.6]}, "overrides.mean.0", "less than or equal to 1"),
        ("mnist", {"momentum": 0}, "overrides", "nesterov needs a momentum"),
        ("mnist", {"devices": 3}, "overrides", "multiple of devices"),
        ("mnist", {"mixup": 0.2, "batch_size": 4, "accumulate": 4}, "overrides", "mix two images"),
        ("mnist", {"class_weights": "balanced", "sampling": "balanced"}, "overrides", "both balance"),
        ("mnist", {"freeze_epochs": 1}, "overrides", "freeze_epochs needs init"),
        ("mnist", {"init": {"weights": "IMAGENET1K_V1"}}, "overrides", "no ready-made weights"),
        ("finetune", {"freeze_epochs": 11}, "overrides", "freeze_epochs must not be more"),
        ("finetune", {"init": {"weights": "IMAGENET1K_V3"}}, "overrides", "nearest is 'IMAGENET1K_V2'"),
        ("finetune", {"network": "torchvision/resnet18"}, "overrides", "nearest is 'IMAGENET1K_V1'"),
        ("finetune", {"channels": 1, "mean": [0.5], "std": [0.2]}, "overrides", "for 3 channels"),
        ("finetune", {"init": {"wights": "IMAGENET1K_V2"}}, "overrides.init.wights", "nearest is 'weights'"),
        ("finetune", {"init": {}}, "overrides.init", TWO_WAYS),
        ("finetune", {"init": {"weights": "IMAGENET1K_V2", "model": "a@1"}}, "overrides.init", TWO_WAYS),
        ("imagenet", {"random_resized_crop": [0.0, 1.0]}, "overrides.random_resized_crop.0", "greater than 0"),
        ("imagenet", {"random_resized_crop": [0.9, 0.5]}, "overrides", "least and then the most"),
        ("imagenet", {"crop_padding": 4}, "overrides", "two ways to crop"),
        ("cifar10-resnet20", {"resize": 16}, "overrides", "resize must be at least"),
    ],
)
def test_what_does_not_fit_is_named(recipe: str, overrides: dict[str, object], field: str, says: str):
    with pytest.raises(RecipeError) as caught:
        resolve(recipe, overrides)
    assert caught.value.field == field
    assert says in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize("recipe", ["finetune", "imagenet"])
@pytest.mark.parametrize(("size", "resize"), [(64, 73), (128, 146), (160, 183), (224, 256), (288, 329), (512, 585)])
def test_resize_follows_the_size_so_that_crops_and_what_is_judged_show_as_much_as_before(recipe, size, resize):
    made = resolve(recipe, {"image_size": size})
    assert (made.resize, made.canvas) == (resize, resize)
    before = RECIPES[recipe]
    assert (made.image_size / made.resize) == pytest.approx(before.image_size / before.resize, rel=0.01)
    assert made == before.model_copy(update={"image_size": size, "resize": resize})


@pytest.mark.parametrize("recipe", [name for name, each in RECIPES.items() if each.random_resized_crop is not None])
@pytest.mark.parametrize("size", [16, 64, 128, 224, 384, 512])
def test_a_random_crop_is_scaled_down_by_an_eighth_at_most(recipe, size):
    """So bilinear taps without antialiasing leave no pixel out."""
    draws = augment.draw(resolve(recipe, {"image_size": size}), samples=500, epoch=0, device=torch.device("cpu"))
    assert draws.box is not None
    assert draws.box[:, 2:].max() / size < 1.15


def test_what_an_override_names_is_not_followed_and_what_has_no_resize_gets_none():
    assert resolve("finetune", {"image_size": 128, "resize": 256}).resize == 256
    assert resolve("finetune", {"image_size": 128, "resize": None}).canvas == 128
    assert resolve("cifar10-fast", {"image_size": 64}).resize is None
    assert resolve("imagenet", {"epochs": 10, "step_epochs": [4]}).step_epochs == (4,)
    assert resolve("imagenet", {"step_epochs": [30, 89.5]}).step_epochs == (30, 89.5)
    assert resolve("mnist", {"epochs": 4}).step_epochs == ()


@pytest.mark.parametrize("epochs", [1, 9, 10, 45, 90, 180])
def test_the_recipes_own_steps_follow_the_epochs_so_that_the_learning_rate_falls_twice(epochs):
    made = resolve("imagenet", {"epochs": epochs})
    assert made.step_epochs == pytest.approx((epochs / 3, epochs * 2 / 3), abs=0.005)
    rates = [learning_rate(made, step=step, steps_per_epoch=300) for step in range(300 * epochs)]
    assert sorted(set(rates), reverse=True) == pytest.approx([0.1, 0.01, 0.001])


def test_changes_on_the_way_are_of_what_was_submitted():
    """Not of one another: what is changed back is as it was."""
    submitted = resolve("imagenet", {"epochs": 50})
    assert override(submitted, {"epochs": 100}).step_epochs == (33.34, 66.66)
    assert override(submitted, {"epochs": 50}) == submitted


@pytest.mark.parametrize(
    ("recipe", "overrides"),
    [
        ("imagenet", {"epochs": 10, "step_epochs": [30, 60]}),
        ("mnist", {"schedule": "step", "step_epochs": [5, 20, 40]}),
        ("imagenet", {"image_size": 32, "batch_size": 1}),
        ("imagenet", {"image_size": 32, "batch_size": 3, "accumulate": 2}),
        ("finetune", {"image_size": 32, "batch_size": 8, "accumulate": 8, "resize": 32}),
        ("cifar10-fast", {"image_size": 8, "batch_size": 8, "accumulate": 5}),
        ("mnist", {"image_size": 32}),
        ("finetune", {"image_size": 128, "resize": 100}),
        ("mnist", {"channels": 3}),
        ("mnist", {"channels": 3, "mean": [0.5, 0.5, 0.5]}),
        ("finetune", {"channels": 1}),
        ("finetune", {"channels": 1, "mean": [0.5], "std": [0.2]}),
        ("mnist", {"warmup_epochs": 15.5}),
        ("mnist", {"schedule": "step"}),
        ("imagenet", {"schedule": "cosine", "step_epochs": [30, 60]}),
        ("imagenet", {"step_epochs": [60, 30]}),
        ("mnist", {"momentum": 0}),
        ("mnist", {"accumulate": 200}),
        ("mnist", {"accumulate": 128, "devices": 2}),
        ("mnist", {"compile": True, "devices": 2}),
        ("mnist", {"devices": 3}),
        ("mnist", {"mixup": 0.2, "batch_size": 4, "accumulate": 4}),
        ("mnist", {"crop_padding": 28}),
        ("mnist", {"cutout": 30}),
        ("imagenet", {"random_resized_crop": [0.9, 0.5]}),
        ("imagenet", {"crop_padding": 4}),
        ("cifar10-fast", {"random_resized_crop": [0.3, 1]}),
        ("mnist", {"test_time_flip": True}),
        ("mnist", {"class_weights": "balanced", "sampling": "balanced"}),
        ("mnist", {"freeze_epochs": 1}),
        ("finetune", {"freeze_epochs": 11}),
        ("finetune", {"init": None}),
        ("finetune", {"network": "torchvision/resnet18"}),
        ("finetune", {"network": "cifar/resnet20"}),
        ("finetune", {"init": {"weights": "IMAGENET1K_V3"}}),
        ("cifar10-resnet20", {"val_fraction": 0, "keep": "best"}),
        ("mnist", {"val_fraction": 0, "keep": "last", "patience": 2}),
        ("mnist", {"val_fraction": 0, "keep": "best", "patience": 2, "target_accuracy": 0.9}),
        ("d2l-fashion-mnist", {"target_accuracy": 0.9}),
    ],
)
def test_each_choice_that_the_hint_of_a_refusal_names_is_accepted(recipe, overrides):
    with pytest.raises(RecipeError) as caught:
        resolve(recipe, overrides)
    told = re.match(r"Set (.+?)\.(?: |$)", caught.value.hint)
    assert told is not None, caught.value.hint
    for choice in told[1].split(", or "):
        named = dict(re.findall(r"(\w+)=(\{.*?\}|\[.*?\]|[\w.]+)", choice))
        assert named
        assert resolve(recipe, {**overrides, **{name: _value(text) for name, text in named.items()}})


def _value(text: str) -> object:
    """As the command line reads it."""
    try:
        return json.loads(text)
    except ValueError:
        return text


@pytest.mark.parametrize("entry", NETWORKS.values(), ids=lambda entry: entry.name)
def test_a_network_learns_from_one_image_from_the_size_on_that_it_says(entry):
    """Without a computation: torch looks at shapes before it normalises."""
    with torch.device("meta"):
        network = build(NetworkSpec(name=entry.name, num_classes=3, in_channels=3))
        smallest = entry.input[1] if entry.fixed_size else max(entry.trains_alone, 8)
        assert network(torch.empty(1, 3, smallest, smallest)).shape == (1, 3)
        if not entry.trains_alone:
            return
        below = torch.empty(2, 3, smallest - 1, smallest - 1)
        assert network(below).shape == (2, 3)
        with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
            network(below[:1])


@pytest.mark.parametrize(
    ("recipe", "overrides"),
    [
        ("imagenet", {"image_size": 33, "batch_size": 1}),
        ("imagenet", {"image_size": 32, "batch_size": 4, "accumulate": 2}),
        ("imagenet", {"image_size": 32, "batch_size": 2, "devices": 2}),  # statistics are those of both devices' images
        ("cifar10-resnet20", {"batch_size": 1}),
        ("mnist", {"batch_size": 7, "accumulate": 7}),
    ],
)
def test_one_image_at_a_time_is_accepted_where_it_works(recipe, overrides):
    assert resolve(recipe, overrides)


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(2, 600), st.sampled_from([32, 33]))
def test_no_part_of_a_batch_is_one_image_where_that_fails_however_few_images_there_are(accumulate, batch, images, size):
    try:
        recipe = resolve("imagenet", {"image_size": size, "batch_size": batch, "accumulate": accumulate})
    except RecipeError:
        assert batch // accumulate < 2
        return
    whole = min(batch, images)
    parts = recipe.parts(whole)
    assert whole // parts >= (2 if size == 32 else 1)
    assert parts == accumulate or whole < 2 * accumulate


def test_the_highest_learning_rate_lies_at_the_end_of_the_warmup_and_half_of_it_in_its_middle():
    recipe = RECIPES["cifar10-fast"]
    warmup = math.floor(recipe.warmup_epochs * 10)
    at = [learning_rate(recipe, step=step, steps_per_epoch=10) for step in range(10 * recipe.epochs)]
    assert at.index(max(at)) in (warmup - 1, warmup)
    assert at[warmup // 2] == pytest.approx(recipe.lr / 2, rel=0.05)


def test_recipes_are_read_without_torch():
    code = "import models.recipes, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
