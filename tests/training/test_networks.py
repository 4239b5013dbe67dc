import pytest
import torch
import torchvision

from models.manifest import NetworkSpec
from models.networks import d2l, mnist
from models.networks.cifar import BasicBlock
from models.networks.registry import NETWORKS, Entry, UnknownNetworkError, build


@pytest.mark.parametrize("entry", NETWORKS.values(), ids=lambda entry: entry.name)
def test_an_entry_tells_its_parameter_count_and_gives_one_logit_a_class(entry: Entry):
    channels, size = entry.input
    with torch.device("meta"):  # shapes alone: no memory, no time
        network = entry.build(num_classes=10, in_channels=channels).eval()
        assert network(torch.zeros(2, channels, size, size)).shape == (2, 10)
    assert sum(p.numel() for p in network.parameters()) == entry.parameters


def test_resnet20_has_the_papers_parameters():
    """He et al. 2015, table 6: 0.27 M."""
    assert round(NETWORKS["cifar/resnet20"].parameters / 1e6, 2) == 0.27


def test_the_cifar_family_has_the_usual_parameters():
    """At ten classes, in millions: what implementations with a 3×3 stem agree on."""
    millions = {depth: round(NETWORKS[f"cifar/resnet{depth}"].parameters / 1e6, 2) for depth in (18, 34, 50, 101, 152)}
    assert millions == {18: 11.17, 34: 21.28, 50: 23.52, 101: 42.51, 152: 58.16}


def test_the_books_resnet18_has_the_books_shapes():
    network = build(NetworkSpec(name="d2l/resnet18", num_classes=10, in_channels=1)).eval()
    shapes = []
    for part in (network.stem, network.stage1, network.stage2, network.stage3, network.stage4):
        part.register_forward_hook(lambda _part, _inputs, output: shapes.append(tuple(output.shape[1:])))
    with torch.inference_mode():
        assert network(torch.zeros(1, 1, 224, 224)).shape == (1, 10)
    assert shapes == [(64, 56, 56), (64, 56, 56), (128, 28, 28), (256, 14, 14), (512, 7, 7)]


@pytest.mark.parametrize(
    ("channels", "classes", "height", "width"), [(2, 3, 64, 96), (5, 100, 224, 160), (3, 1000, 97, 33), (1, 2, 28, 28)]
)
def test_the_books_resnet18_takes_any_channels_classes_and_size(channels: int, classes: int, height: int, width: int):
    network = NETWORKS["d2l/resnet18"].build(num_classes=classes, in_channels=channels)
    logits = network(torch.rand(2, channels, height, width))
    logits.sum().backward()
    assert logits.shape == (2, classes)
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_the_books_residual_block_keeps_or_changes_the_shape():
    x = torch.rand(4, 3, 6, 6)
    assert d2l.Residual(3, 3)(x).shape == (4, 3, 6, 6)
    assert d2l.Residual(3, 6, project=True, stride=2)(x).shape == (4, 6, 3, 3)


def test_a_gated_block_with_a_shut_gate_is_the_identity_and_with_an_open_one_its_path():
    block, x = mnist.GatedBlock(2), torch.rand(1, 2, 5, 5)
    torch.nn.init.zeros_(block.gate.weight)
    torch.nn.init.constant_(block.gate.bias, -100.0)
    assert torch.equal(block(x), x)
    torch.nn.init.constant_(block.gate.bias, 100.0)
    path = block.conv2(torch.relu(block.conv1(x)))
    assert torch.allclose(block(x), torch.relu(path))


def test_a_torchvision_network_is_torchvisions_own_and_takes_other_channels():
    with torch.device("meta"):
        network = build(NetworkSpec(name="torchvision/resnext50_32x4d", num_classes=5, in_channels=1)).eval()
        assert network(torch.zeros(1, 1, 64, 64)).shape == (1, 5)
    assert isinstance(network, torchvision.models.ResNet)


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
