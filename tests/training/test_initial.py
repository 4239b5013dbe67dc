"""What a training starts from, and which layers learn."""

import copy
import hashlib
import json
import signal

import numpy as np
import pytest
import torch
from job_processes import of
from safetensors.torch import save_file
from squares import CLASSES, squares, write_dataset
from torchvision.models import get_model
from trainer_kit import after_checkpoints, finish, trainer

from models.catalog import Catalog
from models.manifest import NetworkSpec, Preprocessing
from models.networks.registry import build
from models.recipes import RECIPES, Recipe, resolve
from models.runtime import load, split
from store.layout import Layout
from worker.job_process import DONE, REFUSED, JobRefused
from worker.trainer import freezing, optimizer, precision
from worker.trainer.data import TrainingData
from worker.trainer.distributed import World
from worker.trainer.fresh import fresh_state
from worker.trainer.initial import initialise
from worker.trainer.pixels import Images
from worker.trainer.state import RunState
from worker.trainer.steps import Steps

CPU = torch.device("cpu")
DIGITS = tuple("0123456789")
FROM_DIGITS = resolve("mnist", {"init": {"model": "mnist-residual"}})
FROM_IMAGENET = resolve("finetune", {"network": "torchvision/resnet18", "init": {"weights": "IMAGENET1K_V1"}})
FILE = "resnet18-f37072fd"


def nothing() -> None:
    pass


def fresh(recipe: Recipe, classes: int = len(CLASSES)) -> torch.nn.Module:
    torch.manual_seed(recipe.seed)
    return build(NetworkSpec(name=recipe.network, num_classes=classes, in_channels=recipe.channels))


def started(recipe: Recipe, layout: Layout, classes: tuple[str, ...] = CLASSES) -> torch.nn.Module:
    network = fresh(recipe, len(classes))
    initialise(network, recipe, classes=classes, data_dir=layout.root, between=nothing)
    return network


def same(one: torch.nn.Module, other: torch.nn.Module) -> set[str]:
    """The names of the tensors that are the same, bit by bit."""
    theirs = other.state_dict()
    return {name for name, tensor in one.state_dict().items() if torch.equal(tensor, theirs[name])}


@pytest.fixture
def seeded(layout: Layout) -> Layout:
    """With the models that come with this project."""
    Catalog(layout.models).seed()
    return layout


def test_without_init_the_weights_are_those_of_the_seed(layout: Layout):
    recipe = RECIPES["mnist"]
    network = fresh(recipe)
    assert initialise(network, recipe, classes=CLASSES, data_dir=layout.root, between=nothing) is None
    assert same(network, fresh(recipe)) == set(network.state_dict())


def test_a_model_gives_all_but_a_last_layer_of_other_classes(seeded: Layout):
    source = load(seeded.models / "mnist-residual" / "1", "cpu").network
    network = fresh(FROM_DIGITS)
    report = initialise(network, FROM_DIGITS, classes=CLASSES, data_dir=seeded.root, between=nothing)
    body, head = set(network.state_dict()) - {"fc2.weight", "fc2.bias"}, {"fc2.weight", "fc2.bias"}
    theirs = source.state_dict()
    assert all(torch.equal(network.state_dict()[name], theirs[name]) for name in body)
    assert same(network, fresh(FROM_DIGITS)) >= head  # the seed's
    assert report is not None
    assert (report.source, report.taken, report.new_head) == ("mnist-residual@1", len(body), True)


def test_a_model_gives_its_last_layer_too_where_the_classes_have_the_same_names(seeded: Layout):
    """In another order: each class's logits stay its own."""
    source = load(seeded.models / "mnist-residual" / "1", "cpu")
    turned = DIGITS[::-1]
    network = started(FROM_DIGITS, seeded, turned).eval()
    images = np.random.default_rng(0).integers(0, 256, (4, 28, 28, 1), dtype=np.uint8)
    with torch.inference_mode():
        logits = network(source.normalise(torch.from_numpy(images))).numpy()
    assert np.allclose(logits[:, ::-1], source.logits(images), atol=1e-5)


def refusal(recipe: Recipe, layout: Layout) -> JobRefused:
    with pytest.raises(JobRefused) as caught:
        started(recipe, layout)
    assert caught.value.hint
    return caught.value


def test_a_model_of_another_network_is_refused_with_what_would_fit(seeded: Layout):
    found = refusal(resolve("cifar10-resnet20", {"init": {"model": "mnist-residual"}}), seeded)
    assert found.code == "other_network"
    assert "Override network with mnist/residual, channels with 1 and image_size with 28" in found.hint


def test_a_model_that_is_not_there_or_damaged_is_refused(seeded: Layout):
    assert refusal(resolve("mnist", {"init": {"model": "mnist-residual@7"}}), seeded).code == "model_not_found"
    weights = seeded.models / "mnist-residual" / "1" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    assert refusal(FROM_DIGITS, seeded).code == "model_damaged"
    for file in (weights, weights.with_name("model.json")):
        file.unlink()
        assert refusal(FROM_DIGITS, seeded).code == "model_damaged"


def test_torchvisions_weights_are_taken_from_the_data_directory_as_safetensors(
    layout: Layout, capfdbinary: pytest.CaptureFixture[bytes]
):
    layout.weights.mkdir()
    source, file = get_model("resnet18", weights=None), layout.weights / f"{FILE}.safetensors"
    counts = {name for name in source.state_dict() if name.endswith("num_batches_tracked")}
    assert counts  # torchvision's file, which is older than they are, lacks them
    save_file({name: tensor for name, tensor in source.state_dict().items() if name not in counts}, file)
    network = started(FROM_IMAGENET, layout)
    body, head = split(network)
    assert same(body, split(source)[0]) == set(body.state_dict())
    assert torch.equal(head.weight, fresh(FROM_IMAGENET).fc.weight)
    (line,) = map(json.loads, capfdbinary.readouterr().out.splitlines())
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert (line["type"], line["data"]["file"], line["data"]["sha256"]) == ("log", file.name, digest)


def test_a_file_that_is_not_what_its_name_says_is_never_opened(layout: Layout):
    layout.weights.mkdir()
    file = layout.weights / f"{FILE}.pth"
    file.write_bytes(b"not torchvision's")
    assert not hashlib.sha256(file.read_bytes()).hexdigest().startswith("f37072fd")
    assert refusal(FROM_IMAGENET, layout).code == "weights_damaged"
    (layout.weights / f"{FILE}.safetensors").write_bytes(b"nor safetensors")
    assert refusal(FROM_IMAGENET, layout).code == "weights_damaged"


def test_weights_of_another_shape_are_refused_by_name(layout: Layout):
    layout.weights.mkdir()
    state = get_model("resnet18", weights=None).state_dict()
    state["layer1.0.conv1.weight"] = torch.zeros(1)
    save_file(state, layout.weights / f"{FILE}.safetensors")
    assert "layer1.0.conv1.weight" in str(refusal(FROM_IMAGENET, layout))


def test_weights_that_cannot_be_had_end_the_job_with_where_to_put_them(layout: Layout, new_job, monkeypatch):
    """The way out is shut by a proxy that is not there; what a killed download left is swept."""
    for name in ("https_proxy", "http_proxy", "HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    write_dataset(layout, {"train": squares(30, seed=0, size=32, channels=3)})
    layout.weights.mkdir()
    (layout.weights / f"{FILE}.pth.0123.partial").write_bytes(b"half")
    job = new_job("far", recipe="finetune", image_size=32, resize=36, **FAR)
    code, said = finish(job)
    assert code == REFUSED
    (error,) = of(said, "error")
    assert error["code"] == "weights_unavailable"
    assert f"{FILE}.pth" in error["message"]
    assert "weights/" in error["hint"]
    assert [each.name for each in layout.weights.iterdir()] == [".lock"]


FAR = {"network": "torchvision/resnet18", "init": {"weights": "IMAGENET1K_V1"}}


def test_a_frozen_backbone_does_not_move_and_neither_do_its_statistics():
    recipe = resolve("cifar10-resnet20", {"network": "cifar/resnet8", "weight_decay": 0.1, "lr": 0.5})
    network = fresh(recipe)
    before, stepping = copy.deepcopy(network), optimizer.build(network, recipe)
    images, labels = torch.randn(8, 3, 16, 16), torch.arange(8) % 3

    def step(*, frozen: bool) -> None:
        freezing.train_mode(network, frozen=frozen)
        stepping.zero_grad()
        torch.nn.functional.cross_entropy(network(images), labels).backward()
        stepping.step()

    for _ in range(3):
        step(frozen=True)
    tensors = set(network.state_dict())
    assert same(network, before) == tensors - {"fc.weight", "fc.bias"}
    step(frozen=False)
    moved = tensors - same(network, before)
    assert moved >= {name for name in tensors if "running" in name or name.endswith("weight")}
    assert network.bn1.training


@pytest.mark.parametrize("name", ["sgd", "nesterov", "adamw"])
def test_after_the_thaw_a_layer_steps_as_if_the_optimizer_had_just_met_it(name: str):
    """No momentum, no decay and no count of steps came upon it while it was frozen; the state travels as it is."""
    recipe = resolve("mnist", {"optimizer": name, "weight_decay": 0.1})
    network = fresh(recipe)
    images, labels = torch.randn(4, 1, 28, 28), torch.arange(4) % 3
    stepping = optimizer.build(network, recipe)

    def step(network: torch.nn.Module, stepping: torch.optim.Optimizer, *, frozen: bool) -> None:
        freezing.train_mode(network, frozen=frozen)
        stepping.zero_grad()
        torch.nn.functional.cross_entropy(network(images), labels).backward()
        stepping.step()

    for _ in range(3):
        step(network, stepping, frozen=True)
    numbers = {id(p): str(number) for number, p in enumerate(_parameters(stepping))}
    _, head = split(network)
    assert {key.split(".")[0] for key in optimizer.state(stepping)} == {numbers[id(p)] for p in head.parameters()}

    twin, restored = copy.deepcopy(network), copy.deepcopy(network)
    new, again = optimizer.build(twin, recipe), optimizer.build(restored, recipe)
    optimizer.restore(again, {key: tensor.clone() for key, tensor in optimizer.state(stepping).items()})
    for each, its in ((network, stepping), (twin, new), (restored, again)):
        step(each, its, frozen=False)
    assert same(network, twin) == set(network.state_dict()) - {"fc2.weight", "fc2.bias"}
    for each, its in ((network, stepping), (restored, again)):
        step(each, its, frozen=False)
    assert same(network, restored) == set(network.state_dict())


def _parameters(stepping: torch.optim.Optimizer) -> list[torch.nn.Parameter]:
    return [parameter for group in stepping.param_groups for parameter in group["params"]]


def test_a_run_killed_while_frozen_ends_with_the_bits_of_one_never_interrupted(seeded: Layout, new_job, here):
    """Six steps an epoch, frozen for nine; killed at the fourth checkpoint."""
    splits = {"train": squares(120, seed=0, size=32, channels=3), "test": squares(30, seed=1, size=32, channels=3)}
    write_dataset(seeded, splits)
    asked = {
        "recipe": "cifar10-resnet20",
        "init": {"model": "cifar10-resnet20"},
        "freeze_epochs": 1.5,
        "ema_decay": 0.9,
    }
    said = here(new_job("whole", **asked))
    whole = seeded.job("whole") / "claim-1" / "model"
    assert "starts from cifar10-resnet20@1, with a new last layer" in [line["message"] for line in of(said, "log")]

    killed = new_job("killed", **asked, checkpoint_seconds=0)
    with trainer(killed) as process:
        said = after_checkpoints(process, 4, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert of(said, "checkpoint")[-1]["step"] < 9
    Catalog(seeded.models).folder("cifar10-resnet20", 1).rename(seeded.root / "gone")  # it is needed no more
    code, said = finish(killed)
    assert code == DONE
    assert [line["message"][:15] for line in of(said, "log")] == ["resumed at step"]
    last = killed / "claim-2" / "model"
    assert (last / "weights.safetensors").read_bytes() == (whole / "weights.safetensors").read_bytes()


def epoch_of(recipe: Recipe, *, until: int, labels: np.ndarray | None = None) -> tuple[RunState, list[torch.Tensor]]:
    """The state after steps of the trainer's own, without a process around it, and what its first layer was given."""
    spec = NetworkSpec(name=recipe.network, num_classes=len(CLASSES), in_channels=recipe.channels)
    state = fresh_state(spec, recipe, CPU, World())
    given: list[torch.Tensor] = []
    first = next(layer for layer in state.network.modules() if isinstance(layer, torch.nn.Conv2d))
    first.register_forward_pre_hook(lambda _layer, inputs: given.append(inputs[0]))
    size = recipe.image_size
    pixels, shown = squares(64, seed=0, size=recipe.canvas, channels=recipe.channels)
    images = Images(pixels=pixels, labels=shown if labels is None else labels)
    shape = {"channels": recipe.channels, "height": size, "width": size, "resize": size}
    preprocessing = Preprocessing(**shape, mean=recipe.mean or (), std=recipe.std or ())
    data = TrainingData(train=images, val=images, preprocessing=preprocessing)
    steps = Steps(recipe=recipe, data=data, classes=len(CLASSES), state=state, device=CPU, world=World())
    while state.step < until:
        with steps.epoch(recipe) as step:
            while state.epoch_step < steps.per_epoch and state.step < until:
                step(recipe)
        if state.epoch_step == steps.per_epoch:
            state.epoch, state.epoch_step = state.epoch + 1, 0
    return state, given


SMALL = {"network": "cifar/resnet8", "batch_size": 16, "epochs": 4, "warmup_epochs": 0, "precision": "fp32"}


def test_the_trainer_freezes_for_as_long_as_the_recipe_says():
    """Four steps an epoch; for six of them the last layer alone learns."""
    recipe = resolve("cifar10-resnet20", {**SMALL, "init": {"model": "any@1"}, "freeze_epochs": 1.5})
    first, _ = epoch_of(recipe, until=0)
    sixth, _ = epoch_of(recipe, until=6)
    tensors = set(first.network.state_dict())
    assert same(first.network, sixth.network) == tensors - {"fc.weight", "fc.bias"}
    assert first.average is not None
    assert sixth.average is not None
    assert same(first.average, sixth.average) == tensors - {"fc.weight", "fc.bias"}
    seventh, _ = epoch_of(recipe, until=7)
    assert not same(first.network, seventh.network) & {name for name in tensors if name.endswith("weight")}


def test_the_same_numbers_whatever_the_layout_in_memory():
    """Up to the order of sums: what is asked for is what the network is given, and its weights lie alike."""
    losses = []
    for channels_last, layout in ((True, torch.channels_last), (False, torch.contiguous_format)):
        state, given = epoch_of(resolve("cifar10-resnet20", {**SMALL, "channels_last": channels_last}), until=4)
        assert all(images.is_contiguous(memory_format=layout) for images in given)
        weights = [parameter for parameter in state.network.parameters() if parameter.ndim == 4]
        assert all(weight.is_contiguous(memory_format=layout) for weight in weights)
        losses.append(float(state.sums[0]))
    assert losses[0] == pytest.approx(losses[1], rel=0.01)


@pytest.mark.parametrize("mixed", [{}, {"mixup": 0.4, "cutmix": 1.0}])
def test_class_weights_count_for_the_same_in_however_many_parts_a_batch_is_computed(mixed: dict):
    """The first class is rarer than the others; parts of two images hold it seldom, and the network has no statistics.

    Mixed images have another partner where parts end, so that their losses are alike and not the same.
    """
    asked = {"batch_size": 16, "epochs": 4, "class_weights": "balanced", "warmup_epochs": 0, "lr": 0.001, **mixed}
    labels = np.repeat([0, 1, 2], [4, 30, 30])
    whole, parts = (epoch_of(resolve("mnist", {**asked, "accumulate": n}), until=4, labels=labels)[0] for n in (1, 8))
    assert float(parts.sums[0]) == pytest.approx(float(whole.sums[0]), rel=0.2 if mixed else 1e-4)
    if not mixed:
        for one, other in zip(whole.network.parameters(), parts.network.parameters(), strict=True):
            assert torch.allclose(one, other, rtol=1e-3, atol=1e-6)


def test_crops_are_taken_from_the_larger_images_that_are_kept():
    choice = {"crop_padding": 0, "random_resized_crop": [0.2, 0.9], "resize": 40}
    state, given = epoch_of(resolve("cifar10-resnet20", {**SMALL, **choice}), until=2)
    again, _ = epoch_of(resolve("cifar10-resnet20", {**SMALL, **choice}), until=2)
    assert [images.shape for images in given] == [(16, 3, 32, 32)] * 2
    assert same(state.network, again.network) == set(state.network.state_dict())


def test_tf32_is_fp32_where_the_device_has_none():
    one, other = (epoch_of(resolve("cifar10-resnet20", {**SMALL, "precision": p}), until=3) for p in ("fp32", "tf32"))
    assert same(one[0].network, other[0].network) == set(one[0].network.state_dict())


def test_tf32_is_allowed_while_a_step_lasts_and_only_where_it_is_asked_for():
    convolutions, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = convolutions.allow_tf32, products.allow_tf32
    for name, allowed in (("fp32", False), ("bf16", False), ("tf32", True)):
        with precision.float32_products(resolve("mnist", {"precision": name})):
            assert (convolutions.allow_tf32, products.allow_tf32) == (allowed, allowed)
        assert (convolutions.allow_tf32, products.allow_tf32) == before


def test_validation_takes_no_tf32_whether_a_model_was_loaded_before_or_not(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    precision.prepared_device("cpu", resolve("mnist", {"precision": "tf32"}))
    assert not torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize(
    ("name", "dtype"), [("fp32", torch.float32), ("tf32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_a_forward_pass_computes_in_the_precision_that_was_asked_for(name: str, dtype: torch.dtype):
    layer, cpu = torch.nn.Conv2d(1, 1, 3), torch.device("cpu")
    with precision.autocast(resolve("mnist", {"precision": name}), cpu):
        assert layer(torch.ones(1, 1, 4, 4)).dtype == dtype
