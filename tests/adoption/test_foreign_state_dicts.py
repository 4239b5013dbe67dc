"""State dicts that were made elsewhere give the logits of their origin, and what fits nothing says so."""

from typing import Literal

import pytest
import torch
import torchvision
from plain_networks import PlainResNet, trained
from torch import Tensor, nn

from models.manifest import NetworkSpec
from models.networks.registry import NETWORKS, build
from worker.adopter import plain
from worker.adopter.guessing import guess, labels, prepared, shapes_of
from worker.adopter.names import canonical, fit, sizes, unwrapped
from worker.adopter.weights import translated
from worker.job_process import JobRefused

ORIGINS = {
    "torchvision/resnet18": lambda: torchvision.models.resnet18(num_classes=5),
    "torchvision/resnet50": lambda: torchvision.models.resnet50(num_classes=5),
    "torchvision/resnext50_32x4d": lambda: torchvision.models.resnext50_32x4d(num_classes=5),
    "cifar/resnet18": lambda: PlainResNet(
        (2, 2, 2, 2), 64, bottleneck=False, word="shortcut", head="linear", classes=10
    ),
    "cifar/resnet50": lambda: PlainResNet((3, 4, 6, 3), 64, bottleneck=True, word="downsample", head="fc", classes=10),
    "cifar/resnet20": lambda: PlainResNet((3, 3, 3), 16, bottleneck=False, word="", head="linear", classes=10),
}


@pytest.mark.parametrize("name", ORIGINS)
def test_a_state_dict_gives_the_logits_of_its_origin_whatever_its_keys_are_called(name: str) -> None:
    torch.manual_seed(1)
    origin = trained(ORIGINS[name]())
    state = {f"module.{key}": tensor for key, tensor in origin.state_dict().items()}
    spec, ours = translated(state, network=None)
    assert spec.name == name
    network = build(spec)
    network.load_state_dict(ours)
    images = torch.randn(3, 3, 64 if name.startswith("torchvision") else 32, 64 if "vision" in name else 32)
    with torch.inference_mode():
        expected, found = origin(images), network.eval()(images)
    assert float((expected - found).abs().max()) <= 1e-4
    bare = dict(origin.state_dict())
    assert plain.is_plain(bare)
    assert float((plain.logits(bare, images) - expected).abs().max()) <= 1e-4


@pytest.mark.parametrize(("shortcut", "head"), [("skip", "fc"), ("shortcut", "classifier"), ("downsample", "output")])
def test_the_plain_layout_is_computed_under_every_name_that_is_understood(shortcut: str, head: str) -> None:
    origin = trained(PlainResNet((2, 2, 2, 2), 64, bottleneck=False, word=shortcut, head=head, classes=10))
    images, bare = torch.randn(2, 3, 16, 16), dict(origin.state_dict())
    assert plain.is_plain(bare)
    with torch.inference_mode():
        assert float((plain.logits(bare, images) - origin(images)).abs().max()) <= 1e-4


def test_the_books_numbered_layers_are_understood() -> None:
    network = build(NetworkSpec(name="d2l/resnet18", num_classes=10, in_channels=1))
    parts = {"stem.": "0.", "stage1.": "1.", "stage2.": "2.", "stage3.": "3.", "stage4.": "4.", "fc.": "5.2."}
    state = {}
    for key, tensor in network.state_dict().items():
        part = next(part for part in parts if key.startswith(part))
        state["net." + parts[part] + key.removeprefix(part)] = tensor
    spec, ours = translated(state, network=None)
    assert (spec.name, spec.in_channels) == ("d2l/resnet18", 1)
    assert all(torch.equal(ours[key], tensor) for key, tensor in network.state_dict().items())


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_tensors_of_every_network_here_are_recognised(name: str, channels: Literal[1, 3]) -> None:
    wanted = NetworkSpec(name=name, num_classes=3, in_channels=channels)
    spec, fitting = guess(shapes_of(wanted), network=None)
    assert spec == wanted
    assert all(ours == theirs for ours, theirs in fitting.names.items())


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", [name for name, entry in NETWORKS.items() if entry.parameters < 12_000_000])
def test_the_weights_of_every_network_here_give_the_same_logits_again(name: str, channels: Literal[1, 3]) -> None:
    """The larger ones differ from these in their shapes alone."""
    origin = trained(build(NetworkSpec(name=name, num_classes=3, in_channels=channels)))
    spec, ours = translated(origin.state_dict(), network=None)
    network = build(spec)
    network.load_state_dict(ours)
    images = torch.randn(2, channels, 28, 28)
    with torch.inference_mode():
        assert torch.equal(network.eval()(images), origin(images))


@pytest.mark.parametrize("word", ["shortcut", "downsample"])
@pytest.mark.parametrize("network", [None, "cifar/resnet20"])
def test_projections_where_the_network_here_has_identities_are_told_apart(word: str, network: str | None) -> None:
    origin = PlainResNet((3, 3, 3), 16, bottleneck=False, word=word, head="linear", classes=10)
    with pytest.raises(
        JobRefused, match=rf"projections \(option B.* identities .*'layer2.0.{word}.0.weight'"
    ) as refused:
        translated(origin.state_dict(), network=network)
    assert refused.value.code == "state_dict_mismatch"
    assert "train cifar/resnet20 here" in refused.value.hint


def test_half_precision_becomes_float32_and_what_counts_batches_may_be_missing() -> None:
    state = _state("cifar/resnet8", dtype=torch.float16)
    spec, ours = translated({key: tensor for key, tensor in state.items() if "num_batches" not in key}, network=None)
    assert spec.name == "cifar/resnet8"
    assert {tensor.dtype for tensor in ours.values()} == {torch.float32, torch.int64}
    build(spec).load_state_dict(ours)


def test_the_first_difference_is_named_and_the_nearest_network() -> None:
    state = _state("cifar/resnet8")
    lacking = {key: tensor for key, tensor in state.items() if key != "stage2.0.conv2.weight"}
    with pytest.raises(JobRefused, match=r"cifar/resnet8: 'stage2.0.conv2.weight' is missing$") as refused:
        translated(lacking, network=None)
    assert refused.value.code == "state_dict_mismatch"
    assert "cifar/resnet8 is the nearest network, 1 tensors differ" in refused.value.hint
    more = {f"module.{key}": tensor for key, tensor in {**state, "extra.weight": torch.zeros(3)}.items()}
    with pytest.raises(JobRefused, match=r"'module.extra.weight' is unexpected$"):
        translated(more, network="cifar/resnet8")
    wrong = {**state, "conv1.weight": torch.zeros(16, 3, 5, 5)}
    with pytest.raises(JobRefused, match=r"'conv1.weight' has shape \(16, 3, 5, 5\), not \(16, 3, 3, 3\)"):
        translated(wrong, network=None)


def test_a_network_that_was_named_wrongly_is_told_which_one_would_fit() -> None:
    with pytest.raises(JobRefused, match=r"not one of cifar/resnet20: 'stage1.1.conv1.weight' is missing") as refused:
        translated(_state("cifar/resnet8"), network="cifar/resnet20")
    assert "It fits cifar/resnet8" in refused.value.hint


@pytest.mark.parametrize(
    ("broken", "code"),
    [
        (torch.full((16,), float("nan")), "not_finite"),
        (torch.zeros(16, dtype=torch.int32), "state_dict_mismatch"),
    ],
)
def test_weights_that_are_no_numbers_are_refused(broken: Tensor, code: str) -> None:
    with pytest.raises(JobRefused) as refused:
        translated({**_state("cifar/resnet8"), "bn1.bias": broken}, network=None)
    assert refused.value.code == code
    assert "'bn1.bias'" in str(refused.value)


def test_a_first_layer_for_other_channels_than_a_pictures_is_refused() -> None:
    with pytest.raises(JobRefused, match="takes 4 channels"):
        translated({**_state("cifar/resnet8"), "conv1.weight": torch.zeros(16, 4, 3, 3)}, network=None)


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("layer3.1.downsample.0.weight", "layer3.1.shortcut.0.weight"),
        ("stage2.0.shortcut.1.running_mean", "layer2.0.shortcut.1.running_mean"),
        ("linear.bias", "fc.bias"),
        ("classifier.weight", "fc.weight"),
        ("b3.1.bn2.weight", "layer2.1.bn2.weight"),
        ("fc1.weight", "fc1.weight"),
        ("layer1.0.conv1.weight", "layer1.0.conv1.weight"),
    ],
)
def test_names_have_one_form(name: str, form: str) -> None:
    assert canonical(name) == form


def test_wrappers_are_taken_off_where_all_names_have_them() -> None:
    names = ["module.model.conv1.weight", "module.model.fc.bias"]
    assert list(unwrapped(names).values()) == ["conv1.weight", "fc.bias"]
    assert unwrapped(["module.a", "b"]) == {"module.a": "module.a", "b": "b"}
    assert unwrapped([]) == {}


def test_a_name_that_stands_for_one_that_is_there_already_is_unexpected() -> None:
    found = {"fc.weight": (2, 4), "linear.weight": (2, 4)}
    told = fit("x", {"fc.weight": (2, 4)}, found)
    assert (told.unexpected, told.missing, told.complete) == (("linear.weight",), (), False)


def test_classes_and_channels_are_read_from_the_ends() -> None:
    assert sizes({"conv1.weight": (64, 1, 3, 3), "linear.weight": (7, 512)}) == (7, 1)
    assert sizes({"a": (3,)}) == (None, None)


def test_images_are_prepared_as_the_family_has_it_unless_asked_otherwise() -> None:
    imagenet = NetworkSpec(name="torchvision/resnet18", num_classes=2, in_channels=3)
    usual = prepared(imagenet, None)
    assert (usual.height, usual.resize, usual.mean) == (224, 256, (0.485, 0.456, 0.406))
    assert prepared(imagenet, {"resize": 232}).resize == 232
    assert prepared(imagenet, {"height": 288, "width": 288}).resize == 288
    grey = prepared(imagenet.model_copy(update={"in_channels": 1}), None)
    assert (grey.channels, len(grey.mean)) == (1, 1)
    with pytest.raises(JobRefused, match="mean and std need 3 values"):
        prepared(imagenet, {"mean": [0.5]})
    with pytest.raises(JobRefused, match="28 × 28 pixels alone"):
        prepared(NetworkSpec(name="mnist/gated", num_classes=10, in_channels=1), {"height": 32})


def test_classes_are_those_that_were_named_or_imagenets_or_numbers() -> None:
    spec = NetworkSpec(name="torchvision/resnet18", num_classes=1000, in_channels=3)
    named, doubt = labels(spec, None)
    assert (named[0], len(named)) == ("tench", 1000)
    assert doubt is not None
    two = NetworkSpec(name="cifar/resnet8", num_classes=2, in_channels=3)
    assert labels(two, ("cat", "dog")) == (("cat", "dog"), None)
    assert labels(two, None)[0] == ("class 0", "class 1")
    with pytest.raises(JobRefused, match="3 classes were named, and the network's last layer gives 2"):
        labels(two, ("a", "b", "c"))


def _state(name: str, *, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    network: nn.Module = build(NetworkSpec(name=name, num_classes=10, in_channels=3))
    return {
        key: tensor.to(dtype) if tensor.is_floating_point() else tensor for key, tensor in network.state_dict().items()
    }
