import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import InterpolationMode, RandAugment, TrivialAugmentWide
from torchvision.transforms.autoaugment import _apply_op
from torchvision.transforms.v2 import functional as v2

from models.recipes import RECIPES
from worker.trainer import augment, auto_augment, mixing
from worker.trainer.auto_operations import OPERATIONS

CPU = torch.device("cpu")
RECIPE = RECIPES["cifar10-resnet20"]


def test_draws_are_a_function_of_seed_epoch_and_visit():
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


def torchvisions(policy: str, size: int) -> list[tuple[str, list[float], bool]]:
    """Torchvision's, for images of this size: each operation's name, magnitudes, and whether they go both ways."""
    if policy == "trivial":
        space = TrivialAugmentWide()._augmentation_space(auto_augment.BINS)
    else:
        space = RandAugment()._augmentation_space(auto_augment.BINS, (size, size))
    bins = auto_augment.BINS
    return [(name, values.expand(bins).double().tolist(), signed) for name, (values, signed) in space.items()]


POLICIES = pytest.mark.parametrize("policy", ["trivial", "rand"])


@POLICIES
@pytest.mark.parametrize("size", [32, 224])
def test_the_magnitudes_are_torchvisions_at_every_size(policy: str, size: int):
    magnitudes, both_ways = auto_augment.magnitudes(policy, size=size)
    expected = torchvisions(policy, size)
    for (name, values, signed), ours, ours_signed in zip(expected, magnitudes, both_ways, strict=True):
        assert ours.tolist() == pytest.approx(values, abs=1e-3), name
        assert ours_signed == signed, name


@pytest.mark.parametrize(
    ("policy", "size", "operation", "expected"),
    [
        ("trivial", 32, "translate_x", 32),
        ("trivial", 224, "translate_x", 32),
        ("trivial", 224, "rotate", 135),
        ("trivial", 224, "posterize", 2),
        ("rand", 32, "translate_y", 150 / 331 * 32 * 9 / 30),
        ("rand", 224, "translate_y", 150 / 331 * 224 * 9 / 30),
        ("rand", 224, "rotate", 9),
        ("rand", 224, "shear_x", 0.09),
        ("rand", 224, "contrast", 0.27),
        ("rand", 224, "posterize", 7),
        ("rand", 224, "solarize", 178.5),
    ],
)
def test_the_strongest_draw_of_an_operation_is_its_policys(policy: str, size: int, operation: str, expected: float):
    """Of TrivialAugment any magnitude may come, of RandAugment the ninth alone."""
    draws = auto_augment.draw(policy, np.random.default_rng(0), size=size, visits=20_000, device=CPU)
    index = [each.__name__ for each in OPERATIONS].index(operation)
    drawn_ones = draws.magnitude[draws.operation == index]
    most = drawn_ones.abs().min() if operation in ("posterize", "solarize") else drawn_ones.abs().max()
    assert float(most) == pytest.approx(expected, rel=1e-5)
    signed = operation not in ("posterize", "solarize")
    assert bool((drawn_ones < 0).any()) == signed
    assert len(drawn_ones.abs().unique()) == (1 if policy == "rand" else 7 if operation == "posterize" else 31)


@POLICIES
@pytest.mark.parametrize("size", [32, 224])
@pytest.mark.parametrize("sign", [1, -1])
def test_an_operation_does_what_torchvisions_does(policy: str, size: int, sign: int):
    """At two magnitudes; a grey value may differ by rounding."""
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 3, 8, 8), dtype=np.uint8))
    images = torch.nn.functional.interpolate(images, scale_factor=size // 8)  # patches, as photographs have them
    nearest = {"interpolation": InterpolationMode.NEAREST, "fill": None}
    for operation, (name, values, signed) in zip(OPERATIONS, torchvisions(policy, size), strict=True):
        for magnitude in (values[9], values[22]):
            how = magnitude * sign if signed else magnitude
            expected = torch.stack([_apply_op(image, name, how, **nearest) for image in images])
            ours = operation(images.float(), torch.full((2,), how)).clamp(0, 255).round()
            difference = (ours - expected.float()).abs()
            assert (difference > 1).float().mean() < 0.01, (name, how)


def test_a_draw_reaches_its_images():
    """The image of a row is what that row's operation makes of it, with its magnitude."""
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (50, 16, 16, 3), dtype=np.uint8))
    draws = auto_augment.draw("rand", np.random.default_rng(1), size=16, visits=90, device=CPU)
    rows = torch.arange(40, 90)
    changed = auto_augment.augment(images, draws, rows)
    for image, row, ours in zip(images, rows.tolist(), changed, strict=True):
        x = image.permute(2, 0, 1)[None].float()
        for index, magnitude in zip(draws.operation[row].tolist(), draws.magnitude[row], strict=True):
            x = OPERATIONS[index](x, magnitude[None]).clamp(0, 255).round()
        assert torch.equal(ours, x[0].permute(1, 2, 0).to(torch.uint8))


@POLICIES
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
    mixed, kept = mixing.mix(inputs, rows, draws), mixing.kept(rows, draws, height=32, width=32)
    share = draws.share[rows][:, None, None, None]
    assert torch.allclose(mixed, share * inputs + (1 - share) * inputs.roll(1, 0), atol=1e-6)
    assert torch.equal(kept, draws.share[rows])


def test_cutmix_takes_a_box_from_the_neighbour_and_weighs_by_its_true_area():
    draws = drawn(cutmix=1.0).mix
    rows = torch.arange(400)
    own = torch.arange(400).float()[:, None, None, None].expand(-1, 1, 32, 32)
    mixed, kept = mixing.mix(own, rows, draws), mixing.kept(rows, draws, height=32, width=32)
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
