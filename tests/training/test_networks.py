import pytest
import torch

from models.manifest import NetworkSpec
from models.networks.cifar import BasicBlock
from models.networks.registry import NETWORKS, Entry, UnknownNetworkError, build


@pytest.mark.parametrize("entry", NETWORKS.values(), ids=lambda entry: entry.name)
def test_an_entry_tells_its_parameter_count_and_gives_one_logit_a_class(entry: Entry):
    channels, size = entry.input
    network = entry.build(num_classes=10, in_channels=channels).eval()
    assert sum(p.numel() for p in network.parameters()) == entry.parameters
    with torch.inference_mode():
        assert network(torch.zeros(2, channels, size, size)).shape == (2, 10)


def test_resnet20_has_the_papers_parameters():
    """He et al. 2015, table 6: 0.27 M."""
    assert round(NETWORKS["cifar/resnet20"].parameters / 1e6, 2) == 0.27


def test_a_spec_chooses_classes_and_channels():
    network = build(NetworkSpec(name="cifar/resnet8", num_classes=7, in_channels=1)).eval()
    with torch.inference_mode():
        assert network(torch.zeros(1, 1, 28, 28)).shape == (1, 7)


def test_the_shortcut_takes_every_second_pixel_and_adds_channels_of_zeros():
    x = torch.randn(1, 16, 4, 4)
    short = BasicBlock(16, 32, 2).shortcut(x)
    assert torch.equal(short[:, 8:24], x[:, :, ::2, ::2])
    assert short[:, :8].count_nonzero() == short[:, 24:].count_nonzero() == 0


def test_an_unknown_network_is_answered_with_the_nearest_name():
    with pytest.raises(UnknownNetworkError, match="nearest is 'cifar/resnet20'"):
        build(NetworkSpec(name="cifar/resnet-20", num_classes=10, in_channels=3))
