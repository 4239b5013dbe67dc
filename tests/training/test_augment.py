import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as v2

from models.recipes import RECIPES
from worker.trainer import augment, auto_augment, mixing

CPU = torch.device("cpu")
RECIPE = RECIPES["cifar10-resnet20"]


def test_draws_are_a_function_of_seed_epoch_and_sample():
    one, same = (augment.draw(RECIPE, samples=50, epoch=3, device=CPU) for _ in range(2))
    other = augment.draw(RECIPE, samples=50, epoch=4, device=CPU)
    assert torch.equal(one.dy, same.dy)
    assert torch.equal(one.flip, same.flip)
    assert not torch.equal(one.dy, other.dy)
    assert not np.array_equal(*(augment.order(samples=50, seed=0, epoch=e) for e in (0, 1)))
    assert sorted(augment.order(samples=50, seed=0, epoch=0)) == list(range(50))


@settings(deadline=None, max_examples=30)
@given(dy=st.integers(-4, 4), dx=st.integers(-4, 4), flip=st.booleans(), seed=st.integers(0, 99))
def test_a_crop_is_the_window_of_the_padded_image_mirrored_where_drawn(dy: int, dx: int, flip: bool, seed: int):
    image = np.random.default_rng(seed).integers(0, 256, (9, 8, 3), dtype=np.uint8)
    padded = np.pad(image, ((4, 4), (4, 4), (0, 0)), mode="reflect")
    window = padded[4 + dy : 13 + dy, 4 + dx : 12 + dx]
    one = torch.tensor
    draws = augment.Draws(dy=one([0, dy]), dx=one([0, dx]), flip=one([False, flip]), cy=one([0, 0]), cx=one([0, 0]))
    pixels = torch.from_numpy(np.stack([np.zeros_like(image), image]))
    result = augment.crop_and_flip(pixels, torch.tensor([1]), torch.tensor([1]), draws, flip=True)
    assert np.array_equal(result[0].numpy(), window[:, ::-1] if flip else window)


def test_cutout_sets_the_square_around_its_centre_to_the_mean():
    draws = augment.draw(RECIPE, samples=1, epoch=0, device=CPU)
    draws = augment.Draws(**{**vars(draws), "cy": torch.tensor([5]), "cx": torch.tensor([0])})
    result = augment.hide(torch.ones(1, 2, 8, 8), torch.tensor([0]), draws, cutout=4)
    expected = torch.ones(2, 8, 8)
    expected[:, 3:7, 0:2] = 0
    assert torch.equal(result[0], expected)


def drawn(**overrides):
    return augment.draw(RECIPE.model_copy(update=overrides), samples=400, epoch=0, device=CPU)


def test_erasing_hides_a_rectangle_of_the_papers_size_in_the_share_of_images_that_was_asked_for():
    draws = drawn(erasing=0.5)
    hidden = augment.hide(torch.ones(400, 1, 32, 32), torch.arange(400), draws, cutout=0) == 0
    area = hidden.float().mean(dim=(1, 2, 3))
    assert 0.4 < (area > 0).float().mean() < 0.6
    assert area.max() < 0.36
    rows, columns = hidden.any(3).sum((1, 2)), hidden.any(2).sum((1, 2))
    assert torch.equal(rows * columns, hidden.sum((1, 2, 3)))  # a rectangle has no holes


def test_balanced_visits_take_each_class_alike_and_each_image_before_any_twice():
    labels = np.array([0] * 90 + [1] * 9 + [2] * 1)
    visits = augment.balanced_order(labels, seed=0, epoch=0)
    assert len(visits) == 100
    assert set(np.bincount(labels[visits])) <= {33, 34}
    assert len(set(visits[labels[visits] == 0])) == (labels[visits] == 0).sum()
    assert set(np.bincount(visits[labels[visits] == 1])[90:]) <= {3, 4}


def test_an_operation_does_what_torchvisions_does():
    """At one strength; a grey value may differ by rounding."""
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 3, 8, 8), dtype=np.uint8))
    images = torch.nn.functional.interpolate(images, scale_factor=4)  # patches, as photographs have them
    s, nearest = 0.37, {"interpolation": InterpolationMode.NEAREST}
    degrees = math.degrees(math.atan(0.99 * s))
    expected = {
        "_identity": images,
        "_shear_x": v2.affine(images, 0, [0, 0], 1, [degrees, 0], **nearest),
        "_shear_y": v2.affine(images, 0, [0, 0], 1, [0, degrees], **nearest),
        "_translate_x": v2.affine(images, 0, [-round(s * 32), 0], 1, [0, 0], **nearest),
        "_translate_y": v2.affine(images, 0, [0, -round(s * 32)], 1, [0, 0], **nearest),
        "_rotate": v2.rotate(images, 135 * s, **nearest),
        "_brightness": v2.adjust_brightness(images, 1 + 0.99 * s),
        "_colour": v2.adjust_saturation(images, 1 + 0.99 * s),
        "_contrast": v2.adjust_contrast(images, 1 + 0.99 * s),
        "_sharpness": v2.adjust_sharpness(images, 1 + 0.99 * s),
        "_posterize": v2.posterize(images, 8 - round(s * 6)),
        "_solarize": v2.solarize(images, 255 * (1 - s)),
        "_autocontrast": v2.autocontrast(images),
        "_equalize": v2.equalize(images),
    }
    strength = torch.full((3,), s)
    for operation, _ in auto_augment.OPERATIONS:
        ours = operation(images.float(), strength).clamp(0, 255).round()
        difference = (ours - expected[operation.__name__].float()).abs()
        assert (difference > 1).float().mean() < 0.01, operation.__name__


@pytest.mark.parametrize("policy", ["trivial", "rand"])
def test_auto_augment_changes_most_images_and_repeats_itself(policy):
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (400, 32, 32, 3), dtype=np.uint8))
    rows = torch.arange(400)
    one, same = (augment.batch(images, rows, rows, drawn(auto_augment=policy), RECIPE) for _ in range(2))
    assert torch.equal(one, same)
    assert one.dtype == torch.uint8
    assert one.shape == images.shape


def test_mixup_is_the_weighted_mean_with_the_neighbour():
    draws = drawn(mixup=0.4).mix
    inputs, rows = torch.rand(8, 3, 32, 32), torch.arange(8)
    mixed, kept = mixing.mix(inputs, rows, draws)
    share = draws.share[rows][:, None, None, None]
    assert torch.allclose(mixed, share * inputs + (1 - share) * inputs.roll(1, 0), atol=1e-6)
    assert torch.equal(kept, draws.share[rows])


def test_cutmix_takes_a_box_from_the_neighbour_and_weighs_by_its_true_area():
    draws = drawn(cutmix=1.0).mix
    rows = torch.arange(400)
    own = torch.arange(400).float()[:, None, None, None].expand(-1, 1, 32, 32)
    mixed, kept = mixing.mix(own, rows, draws)
    assert torch.allclose((mixed == own).float().mean((1, 2, 3)), kept, atol=1e-6)
    assert bool(((mixed == own) | (mixed == own.roll(1, 0))).all())
    assert 0.4 < kept.mean() < 0.8


def test_a_resized_crop_is_torchvisions():
    """Of up and down scaled boxes, mirrored or not; a grey value may differ by rounding."""
    recipe = RECIPES["imagenet"].model_copy(update={"image_size": 24, "resize": 32})
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8))
    draws = augment.draw(recipe, samples=40, epoch=0, device=CPU)
    samples = torch.arange(40).flip(0)
    images = augment.batch(pixels, samples, torch.arange(40), draws, recipe)
    assert images.shape == (40, 24, 24, 3)
    for row, sample in enumerate(samples):
        top, left, height, width = draws.box[row].tolist()
        whole = pixels[sample].permute(2, 0, 1)
        expected = v2.resized_crop(whole, top, left, height, width, [24, 24], antialias=False)
        expected = expected.flip(2) if draws.flip[row] else expected
        assert (images[row].permute(2, 0, 1).int() - expected.int()).abs().max() <= 1


def test_a_crop_of_the_whole_canvas_is_the_image_itself():
    recipe = RECIPES["imagenet"].model_copy(update={"image_size": 32, "resize": None, "horizontal_flip": False})
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 32, 32, 1), dtype=np.uint8))
    whole = torch.tensor([[0, 0, 32, 32]]).expand(3, 4)
    rows = torch.arange(3)
    draws = augment.Draws(**{**vars(augment.draw(recipe, samples=3, epoch=0, device=CPU)), "box": whole})
    assert torch.equal(augment.batch(pixels, rows, rows, draws, recipe), pixels)


@pytest.mark.parametrize(("least", "most"), [(0.08, 1.0), (0.35, 1.0), (1.0, 1.0), (0.5, 0.6)])
def test_crops_lie_in_the_canvas_with_the_area_and_ratio_that_were_asked_for(least: float, most: float):
    recipe = RECIPES["imagenet"].model_copy(update={"random_resized_crop": (least, most)})
    boxes = augment.draw(recipe, samples=2000, epoch=0, device=CPU).box
    assert torch.equal(boxes, augment.draw(recipe, samples=2000, epoch=0, device=CPU).box)
    if least < 1:
        assert not torch.equal(boxes, augment.draw(recipe, samples=2000, epoch=1, device=CPU).box)
    top, left, height, width = boxes.double().unbind(1)
    assert bool((top >= 0).all() and (left >= 0).all())
    assert bool((top + height <= 256).all() and (left + width <= 256).all())
    area, ratio = height * width / 256**2, width / height
    assert least - 0.01 < area.min() <= area.max() < most + 0.01
    assert 0.74 < ratio.min() <= ratio.max() < 1.35
    if least < 0.9 and most == 1.0:
        assert area.min() < least + 0.05
        assert ratio.min() < 0.77
        assert ratio.max() > 1.3


def test_other_augmentations_draw_the_same_whether_crops_are_resized_or_not():
    """Each kind of randomness is a stream of its own: to add one changes none of the others."""
    one, other = drawn(erasing=0.5, random_resized_crop=(0.5, 1.0)), drawn(erasing=0.5)
    assert other.box is None
    assert torch.equal(one.flip, other.flip)
    assert torch.equal(one.erased, other.erased)
