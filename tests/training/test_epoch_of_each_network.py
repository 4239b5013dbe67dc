"""What `benchmarks.families` asks of each network is a training that makes sense, and its comparison notices much."""

from collections import Counter

import numpy as np
import pytest

from benchmarks.family_data import NAMES, balanced
from benchmarks.family_steps import SMALLEST_BATCH, STEPS, different, fitting, one_epoch
from models.networks.registry import NETWORKS
from models.recipes import RECIPES, resolve


@pytest.mark.parametrize("images", [100, 3000, 50_000])
@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_has_a_data_set_and_an_epoch_that_its_recipe_takes(network, images):
    dataset, recipe = fitting(network)
    assert dataset in {*NAMES, "cifar10"}
    asked = one_epoch(network, RECIPES[recipe].model_dump(), images=images)
    made = resolve(recipe, asked)
    assert (made.network, made.epochs, made.init) == (network, 1, None)
    assert made.channels == NETWORKS[network].input[0]
    assert images // made.batch_size >= STEPS or made.batch_size == SMALLEST_BATCH
    if images == 50_000:  # the whole of it is learnt as the recipe has it
        assert (made.batch_size, made.lr) == (RECIPES[recipe].batch_size, RECIPES[recipe].lr)


def test_memory_and_the_size_that_was_asked_for_bound_it():
    recipe = RECIPES["imagenet"]
    asked = one_epoch("torchvision/resnet18", recipe.model_dump(), images=50_000, largest_batch=100, size=64)
    made = resolve("imagenet", asked)
    assert (made.batch_size, made.image_size, made.resize) == (64, 64, 73)
    assert made.lr == pytest.approx(recipe.lr / 2)


def test_a_part_has_the_first_images_of_each_class_equally_often():
    labels = np.array([0, 1, 1, 1, 0, 0, 1, 0])
    assert balanced(labels, 4).tolist() == [0, 1, 2, 4]
    assert balanced(labels, None).tolist() == list(range(8))
    with pytest.raises(SystemExit, match="take 4 or more"):
        balanced(labels, 3)


def test_an_image_that_is_answered_otherwise_is_counted_once():
    one = Counter({("cat", "cat"): 5, ("dog", "dog"): 5})
    assert different(one, Counter(one)) == 0
    assert different(one, Counter({("cat", "cat"): 4, ("cat", "dog"): 1, ("dog", "dog"): 5})) == 1
