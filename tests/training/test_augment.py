import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.recipes import RECIPES
from worker.trainer import augment

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
    result = augment.crop_and_flip(pixels, torch.tensor([1]), draws, flip=True)
    assert np.array_equal(result[0].numpy(), window[:, ::-1] if flip else window)


def test_cutout_sets_the_square_around_its_centre_to_the_mean():
    draws = augment.draw(RECIPE, samples=1, epoch=0, device=CPU)
    draws = augment.Draws(**{**vars(draws), "cy": torch.tensor([5]), "cx": torch.tensor([0])})
    result = augment.cut_out(torch.ones(1, 2, 8, 8), torch.tensor([0]), draws, side=4)
    expected = torch.ones(2, 8, 8)
    expected[:, 3:7, 0:2] = 0
    assert torch.equal(result[0], expected)
